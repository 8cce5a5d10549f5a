//! What answers: [`PolicyChoice`] names it, [`Equipment`] makes it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use eva::benchmark::{Item, VideoMissing, WorldTask};
use eva::burn::weights::Precision;
use eva::burn::{BurnPolicy, Device, DeviceChoice, GenerateError, LoadError, SharedPolicy};
use eva::core::{Abort, Message, Policy, RgbImage, Usage};
use eva::evaluate::Setup;
use eva::gst::GstError;
#[cfg(feature = "hub")]
use eva::hub::HubModel;
#[cfg(feature = "remote")]
use eva::openai::{OpenAi, OpenAiConfig, OpenAiError};
use eva::world::{EncodeError, Expert, World};
use serde_json::Value;

use crate::Failure;
use crate::footage::{Footage, Source};
#[cfg(feature = "remote")]
use crate::remote::{RemoteArguments, connect};

/// A policy, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PolicyChoice {
    /// A model directory.
    Burn(PathBuf),
    /// The scripted expert of the synthetic worlds.
    Expert,
    /// A model on a hub, and its folder once it was fetched.
    #[cfg(feature = "hub")]
    Hub(HubModel, Option<PathBuf>),
    /// A server's address.
    #[cfg(feature = "remote")]
    Remote(String),
    /// The bundled model.
    Tiny,
}

impl FromStr for PolicyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("burn:")) {
            ("expert", _) => Ok(Self::Expert),
            ("tiny", _) => Ok(Self::Tiny),
            (_, Some(dir)) if !dir.is_empty() => Ok(Self::Burn(dir.into())),
            #[cfg(feature = "hub")]
            (name, _) if name.starts_with("hf:") => match name["hf:".len()..].parse() {
                Ok(model) => Ok(Self::Hub(model, None)),
                Err(error) => Err(eva::hub::HubError::to_string(&error)),
            },
            #[cfg(not(feature = "hub"))]
            (name, _) if name.starts_with("hf:") => Err(
                "models on a hub need the feature `hub`: build with --features gst,hub".to_owned(),
            ),
            #[cfg(feature = "remote")]
            (url, _) if url.contains("://") => match OpenAiConfig::new(url) {
                Ok(_) => Ok(Self::Remote(url.to_owned())),
                Err(error) => Err(error.to_string()),
            },
            #[cfg(not(feature = "remote"))]
            (url, _) if url.contains("://") => Err(
                "servers need the feature `remote`: build with --features gst,remote".to_owned(),
            ),
            _ => Err(
                "write tiny, expert, burn: and the folder of a model, hf: and its name on a hub, or a \
                 server's address (http://HOST:PORT/v1)"
                    .to_owned(),
            ),
        }
    }
}

/// As it is written.
impl fmt::Display for PolicyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burn(dir) => write!(f, "burn:{}", dir.display()),
            Self::Expert => f.write_str("expert"),
            #[cfg(feature = "hub")]
            Self::Hub(model, _) => write!(f, "hf:{model}"),
            #[cfg(feature = "remote")]
            Self::Remote(url) => f.write_str(url),
            Self::Tiny => f.write_str("tiny"),
        }
    }
}

impl PolicyChoice {
    /// Fetches what is on a hub, and names its commit from then on, so that a run that goes on later
    /// goes on with the same weights or not at all.
    pub(crate) fn fetch(&mut self) -> Result<(), Failure> {
        #[cfg(feature = "hub")]
        if let Self::Hub(model, dir @ None) = self {
            let snapshot = crate::hub::fetch(model)?;
            *model = model.at(&snapshot.revision)?;
            *dir = Some(snapshot.dir);
        }
        Ok(())
    }

    /// The folder of a model that is loaded.
    fn dir(&self) -> Option<&PathBuf> {
        match self {
            Self::Burn(dir) => Some(dir),
            #[cfg(feature = "hub")]
            Self::Hub(_, dir) => dir.as_ref(),
            _ => None,
        }
    }
}

/// What is said of a model beside its name.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArguments {
    /// Name of the model on the server; the first that it lists if not given
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// Where a model runs: cpu, wgpu, vulkan, metal, cuda or cuda:N; all but cpu must be compiled in
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,

    /// A model's weights in memory: f32, f16 or bf16 (half of it), int8 (a quarter) or int4 (about an
    /// eighth)
    #[arg(long, value_name = "f32|f16|bf16|int8|int4", default_value_t)]
    pub(crate) precision: Precision,

    #[cfg(feature = "remote")]
    #[command(flatten)]
    pub(crate) remote: RemoteArguments,
}

impl ModelArguments {
    /// What of it decides the replies of `policy`.
    pub(crate) fn settings(&self, policy: &PolicyChoice) -> Vec<(&'static str, Value)> {
        match policy {
            local if local.dir().is_some() && self.precision != Precision::default() => {
                vec![("precision", self.precision.to_string().into())]
            }
            #[cfg(feature = "remote")]
            PolicyChoice::Remote(_) => vec![
                ("model", self.model.clone().into()),
                ("images", self.remote.images.to_string().into()),
                ("tool_role", self.remote.tool_role.to_string().into()),
            ],
            _ => Vec::new(),
        }
    }
}

/// A policy at work.
pub(crate) enum AnyPolicy {
    Burn(Box<SharedPolicy<RgbImage>>),
    /// For the item at hand.
    Expert(Option<Box<Expert>>),
    #[cfg(feature = "remote")]
    Remote(Box<OpenAi>),
}

/// A reply could not be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error(transparent)]
    Burn(#[from] GenerateError),
    #[error("the expert was not told the question, or could not write")]
    Expert(#[from] fmt::Error),
    #[cfg(feature = "remote")]
    #[error(transparent)]
    Remote(#[from] OpenAiError),
}

impl Policy<RgbImage> for AnyPolicy {
    type Error = PolicyError;

    fn generate(
        &mut self,
        conversation: &[Message<'_, RgbImage>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, PolicyError> {
        match self {
            Self::Burn(policy) => match policy.generate(conversation, reply) {
                // As a panic of its own model would: the worker's equipment is made anew.
                #[expect(
                    clippy::panic,
                    reason = "caught by the pool, which tells it of this item"
                )]
                Err(gone @ GenerateError::Gone) => panic!("{gone}"),
                result => Ok(result?),
            },
            Self::Expert(Some(expert)) => Ok(expert.generate(conversation, reply)?),
            Self::Expert(None) => Err(fmt::Error.into()),
            #[cfg(feature = "remote")]
            Self::Remote(policy) => Ok(policy.generate(conversation, reply)?),
        }
    }
}

/// Makes policies and sources for the workers.
pub(crate) struct Equipment {
    policy: PolicyChoice,
    device: Device,
    precision: Precision,
    /// The model that all workers share, once one has asked for it.
    model: Mutex<Option<SharedPolicy<RgbImage>>>,
    workers: usize,
    footage: Arc<Footage>,
    /// The server that all workers share, if the model is on one.
    #[cfg(feature = "remote")]
    remote: Option<OpenAi>,
}

/// A policy or a source could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EquipmentError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("cannot keep the encoded video: {0}; check the folder of the results")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Missing(#[from] VideoMissing),
    #[cfg(feature = "remote")]
    #[error("no server was opened")]
    NoServer,
    #[error("the model was not fetched from its hub")]
    NotFetched,
    #[error("item {0} is not about a synthetic world")]
    NotAWorld(u64),
    #[error(transparent)]
    Open(#[from] GstError),
    #[error("the system gives the model no thread: {0}; lower the concurrency")]
    Thread(io::Error),
}

impl Equipment {
    /// - workers: how many will ask for a policy
    pub(crate) fn new(
        policy: &PolicyChoice,
        model: &ModelArguments,
        workers: usize,
        footage: impl Into<Arc<Footage>>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            policy: policy.clone(),
            device: model.device.open()?,
            precision: model.precision,
            model: Mutex::default(),
            workers,
            footage: footage.into(),
            #[cfg(feature = "remote")]
            remote: match policy {
                PolicyChoice::Remote(url) => {
                    Some(connect(model.remote.config(url, model.model.as_deref())?)?)
                }
                _ => None,
            },
        })
    }

    /// The model in memory, or a new one where the other is gone.
    fn model(&self) -> Result<SharedPolicy<RgbImage>, EquipmentError> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = model.as_ref().filter(|shared| !shared.is_gone()) {
            return Ok(shared.clone());
        }
        let loaded = match &self.policy {
            PolicyChoice::Tiny => BurnPolicy::tiny(&self.device)?,
            other => {
                let dir = other.dir().ok_or(EquipmentError::NotFetched)?;
                BurnPolicy::load_as(dir, &self.device, self.precision)?
            }
        };
        let loaded = loaded.with_kept_conversations(self.workers);
        let shared = loaded.share().map_err(EquipmentError::Thread)?;
        Ok(model.insert(shared).clone())
    }
}

impl Setup for Equipment {
    type Source = Source;
    type Policy = AnyPolicy;
    type Error = EquipmentError;

    fn policy(&self) -> Result<AnyPolicy, EquipmentError> {
        Ok(match &self.policy {
            PolicyChoice::Expert => AnyPolicy::Expert(None),
            #[cfg(feature = "remote")]
            PolicyChoice::Remote(_) => {
                let shared = self.remote.clone().ok_or(EquipmentError::NoServer)?;
                AnyPolicy::Remote(Box::new(shared))
            }
            _ => AnyPolicy::Burn(Box::new(self.model()?)),
        })
    }

    fn source(&self, item: &Item) -> Result<Source, EquipmentError> {
        self.footage.open(item)
    }

    fn prepare(&self, policy: &mut AnyPolicy, item: &Item) -> Result<(), EquipmentError> {
        if let AnyPolicy::Expert(expert) = policy {
            let task = WorldTask::of(item).ok_or(EquipmentError::NotAWorld(item.index))?;
            let world = Arc::new(World::new(task.seed));
            *expert = Some(Box::new(Expert::new(world, task.question)));
        }
        Ok(())
    }

    fn abort(error: &PolicyError) -> Abort {
        match error {
            #[cfg(feature = "remote")]
            PolicyError::Remote(error) => error.abort(),
            PolicyError::Burn(_) | PolicyError::Expert(_) => Abort::Exception,
        }
    }
}
