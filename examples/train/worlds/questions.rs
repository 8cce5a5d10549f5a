//! Which question is asked about which world: [`Quiz`].

use std::sync::Arc;

use eva::train::{Asked, Form};
use eva::world::{Kind, Question, Split, World};

/// A question about a world.
#[derive(Debug, Clone)]
pub(crate) struct Quiz {
    /// Its number within its split.
    pub(crate) number: u32,
    pub(crate) world: Arc<World>,
    pub(crate) question: Question,
}

impl Quiz {
    /// Question number `number` of a split: kinds take turns, and of each kind every other question
    /// is multiple choice. Each is about a world of its own.
    pub(crate) fn numbered(split: Split, number: u32) -> Self {
        let kinds = Kind::ALL.len() as u32;
        let kind = Kind::ALL[(number % kinds) as usize];
        Self::of_kind(split, number, kind, number / kinds % 2 == 1)
    }

    pub(crate) fn of_kind(split: Split, number: u32, kind: Kind, choices: bool) -> Self {
        let world = Arc::new(World::new(split.seed(number)));
        let seed = u64::from(number);
        let open = world.question(kind, seed);
        let question = if choices { open.choices(seed) } else { open };
        Self {
            number,
            world,
            question,
        }
    }

    /// The name of its kind, and whether it is multiple choice.
    pub(crate) fn field(&self) -> String {
        let kind = self.question.kind.name();
        match self.question.options {
            Some(_) => format!("{kind}-choice"),
            None => kind.to_owned(),
        }
    }

    pub(crate) fn asked(&self) -> Asked {
        let form = match self.question.options {
            Some(_) => Form::Letter,
            None => Form::Words,
        };
        Asked {
            question: self.question.text.clone(),
            truth: self.question.answer.clone(),
            form,
        }
    }
}
