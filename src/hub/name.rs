//! The name of a model on a hub: [`HubModel`].

use std::fmt;
use std::str::FromStr;

use super::HubError;

/// A model on a hub: `OWNER/NAME`, or `OWNER/NAME@REVISION` for a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubModel {
    owner: String,
    name: String,
    revision: String,
}

/// The branch that counts where no other is named.
const MAIN: &str = "main";

/// Longest part of a name.
const LONGEST: usize = 96;

impl HubModel {
    /// Its owner.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Its name, without the owner's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same model at another revision, such as the commit of a [`Snapshot`](super::Snapshot).
    ///
    /// # Errors
    /// [`HubError::Name`] when no revision can be called so.
    pub fn at(&self, revision: &str) -> Result<Self, HubError> {
        format!("{}/{}@{revision}", self.owner, self.name).parse()
    }
}

impl FromStr for HubModel {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = || HubError::Name {
            name: text.to_owned(),
        };
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (owner, name) = name.split_once('/').ok_or_else(wrong)?;
        // In a file's name the parts are joined by two dashes, so that none may have them.
        let fine = |part: &str| is_plain(part) && !part.contains("--");
        if !fine(owner) || !fine(name) || !revision.split('/').all(is_plain) {
            return Err(wrong());
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

/// As it is written; without the revision where that is the main one.
impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// Whether a part of a name is one, on every system, and nothing else: it becomes that of a folder.
fn is_plain(part: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=LONGEST).contains(&part.len())
        && part.bytes().all(is_fine)
        && !part.starts_with(['.', '-'])
        && !part.ends_with('.')
        && !part.contains("..")
}

/// Whether a revision is a whole commit, which never changes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["Owner/a-model_1.5", "o/n@v1.0", "o/n@refs/pr/7"] {
            assert_eq!(text.parse::<HubModel>().unwrap().to_string(), text);
        }
        let main: HubModel = "o/n@main".parse().unwrap();
        assert_eq!(main.to_string(), "o/n");
        assert_eq!(main.at("abc").unwrap().to_string(), "o/n@abc");
    }

    #[test]
    fn what_could_lead_anywhere_else_is_no_name() {
        for text in [
            "",
            "name",
            "/",
            "o/",
            "/n",
            "o/n/m",
            "../n",
            "o/..",
            "o/.n",
            "o/n@",
            "o/n@..",
            "o/n@a/../b",
            "o/n@/a",
            "o/n@a//b",
            "o/n@a@b",
            "o\\n",
            "o/n m",
            "o/n?x",
            "o/n#x",
            "o/n@a%2f",
            "o--p/n",
            "o/n.",
            "ö/n",
            "o/n\n",
            "-o/n",
        ] {
            assert!(text.parse::<HubModel>().is_err(), "{text:?}");
        }
        assert!(format!("o/{}", "n".repeat(97)).parse::<HubModel>().is_err());
        assert!(HubModel::from_str("o/n").unwrap().at("../x").is_err());
    }
}
