//! Options for a model on a server, which several examples have.

use std::time::Duration;

use clap::Args;
use eva::openai::{Images, OpenAi, OpenAiConfig, OpenAiError, ToolRole};

/// Where hosted services expect their key.
const KEY: &str = "OPENAI_API_KEY";

/// How a server is talked to, if a model is one.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for a model on a server (http://...)")]
pub(crate) struct RemoteArguments {
    /// Environment variable with the server's API key [default: OPENAI_API_KEY, if it is set]
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) api_key_env: Option<String>,

    /// How frames are sent: png, jpeg or jpeg:QUALITY in the request, or file:DIR for files that the
    /// server reads itself
    #[arg(long, value_name = "png|jpeg|file:DIR", default_value_t = Images::Png)]
    pub(crate) images: Images,

    /// Role of the messages that hold frames; user is for servers that refuse pictures in tool
    #[arg(long, value_name = "tool|user", default_value_t)]
    pub(crate) tool_role: ToolRole,

    /// Seconds that the server may take for a reply
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

impl RemoteArguments {
    /// The server at `url`, before any other choice.
    pub(crate) fn config(
        &self,
        url: &str,
        model: Option<&str>,
    ) -> Result<OpenAiConfig, OpenAiError> {
        let mut config = OpenAiConfig::new(url)?
            .with_images(self.images.clone())
            .with_tool_role(self.tool_role)
            .with_timeout(Duration::from_secs(self.timeout));
        if let Some(model) = model {
            config = config.with_model(model);
        }
        match self.api_key_env.as_deref() {
            Some(variable) => config.with_key_from_env(variable),
            None if std::env::var_os(KEY).is_some_and(|key| !key.is_empty()) => {
                config.with_key_from_env(KEY)
            }
            None => Ok(config),
        }
    }
}

/// The policy, once the server has said which model it has.
pub(crate) fn connect(config: OpenAiConfig) -> Result<OpenAi, OpenAiError> {
    let policy = config.open()?;
    policy.model()?;
    Ok(policy)
}
