//! Runs that went well, found again by what they were asked: [`Bank`].

use bm25::{Language, SearchEngine, SearchEngineBuilder};
use eva_core::trajectory::PartRecord;
use eva_core::{Role, Trajectory};

use super::text::shortened;

/// Longest course that is kept, in characters.
const LONGEST: usize = 2000;

/// A question, and how it was answered right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experience {
    /// The question.
    pub question: String,
    /// What the model wrote, turn by turn.
    pub course: String,
}

/// Experiences, ranked by BM25 on their questions.
pub struct Bank {
    all: Vec<Experience>,
    engine: Option<SearchEngine<u32>>,
}

impl Experience {
    /// What can be learnt from a run.
    #[must_use]
    pub fn of(trajectory: &Trajectory) -> Self {
        let own = trajectory.messages.iter();
        let turns = own.filter(|message| message.role == Role::Assistant);
        let texts = turns
            .flat_map(|turn| &turn.parts)
            .filter_map(|part| match part {
                PartRecord::Text(text) => Some(text.as_str()),
                PartRecord::Image(_) => None,
            });
        let numbered = (1..).zip(texts);
        let course: Vec<String> = numbered
            .map(|(turn, text)| format!("Turn {turn}:\n{text}"))
            .collect();
        Self {
            question: trajectory.question.clone(),
            course: shortened(&course.join("\n"), LONGEST),
        }
    }
}

impl Bank {
    /// A bank of these experiences.
    pub fn new(experiences: impl IntoIterator<Item = Experience>) -> Self {
        let all: Vec<Experience> = experiences.into_iter().collect();
        let questions = all.iter().map(|one| one.question.as_str());
        let questions: Vec<&str> = questions.collect();
        // A mean length can't be told of nothing.
        let engine = (!all.is_empty())
            .then(|| SearchEngineBuilder::<u32>::with_corpus(Language::English, questions).build());
        Self { all, engine }
    }

    /// The `most` experiences most like `question`, the best first; of those with the same question
    /// the first alone.
    #[must_use]
    pub fn similar(&self, question: &str, most: usize) -> Vec<&Experience> {
        let Some(engine) = &self.engine else {
            return Vec::new();
        };
        let mut found = engine.search(question, None);
        // The engine leaves the order of equal scores to chance.
        found.sort_by(|a, b| {
            let score = b.score.total_cmp(&a.score);
            score.then(a.document.id.cmp(&b.document.id))
        });
        let mut chosen: Vec<&Experience> = Vec::new();
        for one in found {
            let Some(experience) = self.all.get(one.document.id as usize) else {
                continue;
            };
            if chosen.len() == most {
                break;
            }
            if chosen
                .iter()
                .all(|other| other.question != experience.question)
            {
                chosen.push(experience);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn bank(questions: &[&str]) -> Bank {
        Bank::new(
            (0..)
                .zip(questions)
                .map(|(number, question): (u32, _)| Experience {
                    question: (*question).to_owned(),
                    course: number.to_string(),
                }),
        )
    }

    #[test]
    fn the_most_similar_questions_come_first() {
        let bank = bank(&[
            "Who wins the race?",
            "What colour is the car that wins the race?",
            "How many dogs are there?",
        ]);
        let courses = |question: &str, most| {
            let similar = bank.similar(question, most);
            similar
                .iter()
                .map(|one| one.course.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(courses("How many dogs play?", 1), ["2"]);
        assert_eq!(courses("Which colour has the winning car?", 1), ["1"]);
        assert_eq!(courses("zebra", 2), Vec::<String>::new());
    }

    #[test]
    fn equal_questions_are_shown_once_and_the_first_of_them() {
        let bank = bank(&["What digit is it?"; 5]);
        for _ in 0..10 {
            let similar = bank.similar("What digit is it?", 3);
            assert_eq!(similar.len(), 1);
            assert_eq!(similar[0].course, "0");
        }
        assert!(Bank::new([]).similar("What?", 3).is_empty());
    }
}
