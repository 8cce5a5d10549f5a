//! Which files of a repository a model directory needs.

/// Small files: all of them are fetched.
const CONFIGURATIONS: [&str; 4] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
];

const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The weight files of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights<'a> {
    /// These.
    Files(Vec<String>),
    /// Those that this file names.
    Index(&'a str),
    /// There are none.
    None,
}

/// Whether a name stays in the folder it is put into, on every system.
pub(super) fn is_safe(name: &str) -> bool {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let odd = |c: char| c.is_control() || matches!(c, '\\' | ':');
    !name.contains(odd) && name.split('/').all(is_plain)
}

/// A name without folders: a model directory has none.
fn is_top(name: &str) -> bool {
    is_safe(name) && !name.contains('/')
}

/// The configuration files.
pub(super) fn configurations(files: &[String]) -> Vec<&str> {
    let wanted = |name: &&str| CONFIGURATIONS.contains(name);
    files.iter().map(String::as_str).filter(wanted).collect()
}

/// All that is needed beside the weights.
pub(super) fn small(files: &[String]) -> Vec<&str> {
    let wanted = |name: &&str| {
        let text = name.ends_with(".json") || name.ends_with(".jinja");
        let chat = name.starts_with("tokenizer") || name.starts_with("chat_template");
        CONFIGURATIONS.contains(name) || (is_top(name) && text && chat)
    };
    files.iter().map(String::as_str).filter(wanted).collect()
}

/// The weights, as the loader looks for them.
pub(super) fn weights(files: &[String]) -> Weights<'_> {
    let has = |wanted: &str| files.iter().find(|name| *name == wanted);
    if let Some(single) = has(SINGLE) {
        return Weights::Files(vec![single.clone()]);
    }
    has(INDEX).map_or(Weights::None, |index| Weights::Index(index))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_a_directory_needs_is_chosen_and_nothing_else() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "chat_template.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/config.json",
            "original/tokenizer.json",
            "pytorch_model.bin",
            "preprocessor_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "vocab.json",
        ];
        let names = names.map(str::to_owned);
        let configurations = [
            "config.json",
            "generation_config.json",
            "preprocessor_config.json",
        ];
        assert_eq!(super::configurations(&names), configurations);
        assert_eq!(
            small(&names),
            [
                "config.json",
                "generation_config.json",
                "chat_template.json",
                "preprocessor_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ]
        );
        assert_eq!(weights(&names), Weights::Index(INDEX));
        let single = ["model.safetensors".to_owned(), INDEX.to_owned()];
        assert_eq!(weights(&single), Weights::Files(vec![SINGLE.to_owned()]));
        assert_eq!(weights(&[]), Weights::None);
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_safe() {
        for name in ["a", "a/b.json", "..a", "a..b", "é.json", "a b"] {
            assert!(is_safe(name), "{name}");
        }
        for name in [
            "", "..", "../a", "a/..", "a/../b", "/a", "a//b", "./a", "a/", "a\\..\\b", "C:a",
            "a\0b", "a\nb",
        ] {
            assert!(!is_safe(name), "{name:?}");
        }
    }
}
