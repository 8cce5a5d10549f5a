#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::journal::JournalError as ResultsError;
use std::fs;
use std::path::Path;

const RECORDS: &str = Record::FILE;
const SETTINGS: &str = "run.json";

fn settings(policy: &str) -> Map<String, Value> {
    let mut settings = Map::new();
    settings.insert("policy".to_owned(), policy.into());
    settings
}

fn open(folder: &Path, retry: bool) -> Results {
    Results::open(folder, &settings("tiny"), retry).unwrap()
}

fn record(index: u64, stop_reason: &str) -> Record {
    Record {
        index,
        gt: "A".to_owned(),
        answer: Some("ä\n\"".to_owned()),
        stop_reason: stop_reason.to_owned(),
        ..Record::default()
    }
}

fn read(folder: &Path) -> Vec<Record> {
    let reader = RecordReader::open(folder).unwrap();
    let mut records: Vec<Record> = reader.map(Result::unwrap).collect();
    records.sort_by_key(|record| record.index);
    records
}

fn lines(folder: &Path) -> usize {
    let text = fs::read_to_string(folder.join(RECORDS)).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().count()
}

#[test]
fn a_file_cut_at_any_byte_is_completed_without_loss_and_without_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<Record> = (0..4).map(|index| record(index, "answer_found")).collect();
    {
        let mut results = open(dir.path(), false);
        all.iter()
            .for_each(|record| results.append(record).unwrap());
    }
    let whole = fs::read(dir.path().join(RECORDS)).unwrap();
    assert_eq!(read(dir.path()), all);
    for cut in 0..=whole.len() {
        fs::write(dir.path().join(RECORDS), &whole[..cut]).unwrap();
        let mut results = open(dir.path(), false);
        let complete = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let found = results.found();
        // One whose line break alone is missing is complete too.
        let rest = whole.get(cut) == Some(&b'\n');
        assert_eq!(found.records, complete + u64::from(rest), "cut at {cut}");
        for record in &all {
            if !results.done().contains(record.index) {
                results.append(record).unwrap();
            }
        }
        drop(results);
        assert_eq!(read(dir.path()), all, "cut at {cut}");
        assert_eq!(lines(dir.path()), all.len(), "cut at {cut}");
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let results = open(dir.path(), false);
    let error = Results::open(dir.path(), &settings("tiny"), false).unwrap_err();
    assert!(matches!(error, ResultsError::Locked(_)));
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "{error}");
    drop(results);
    open(dir.path(), false);
}

#[test]
fn a_retry_takes_out_what_is_not_settled_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let reasons = [
        "answer_found",
        "exception",
        "no_valid_tool_call",
        "no_nframes; no_nframes",
    ];
    {
        let mut results = open(dir.path(), false);
        for (index, reason) in (0..).zip(reasons) {
            results.append(&record(index, reason)).unwrap();
        }
        let failed = Record {
            error: Some("disk full".to_owned()),
            ..record(4, "answer_found")
        };
        results.append(&failed).unwrap();
    }
    assert_eq!(open(dir.path(), false).found().records, 5);
    let mut results = open(dir.path(), true);
    let expected = Found {
        records: 2,
        retried: 3,
        ..Found::default()
    };
    assert_eq!(results.found(), expected);
    assert_eq!(results.done(), &Indices::from_iter([0, 2]));
    results.append(&record(1, "answer_found")).unwrap();
    drop(results);
    let kept: Vec<u64> = read(dir.path()).iter().map(|record| record.index).collect();
    assert_eq!(kept, [0, 1, 2]);
}

#[test]
fn of_two_records_of_an_item_the_later_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let line = |record: &Record| serde_json::to_string(record).unwrap();
    let (early, late) = (record(1, "exception"), record(1, "answer_found"));
    let text = [line(&early), line(&record(2, "answer_found")), line(&late)].join("\n\nhalf {\n");
    fs::write(dir.path().join(RECORDS), text + "\n").unwrap();
    assert_eq!(RecordReader::open(dir.path()).unwrap().broken(), 2);
    assert_eq!(read(dir.path())[0], late);
    let results = open(dir.path(), false);
    let found = results.found();
    assert_eq!((found.records, found.doubled, found.broken), (2, 1, 2));
    assert_eq!(lines(dir.path()), 2);
}

#[test]
fn a_folder_with_another_run_is_refused_and_says_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), false);
    let error = Results::open(dir.path(), &settings("expert"), false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("policy \"tiny\", not \"expert\""), "{text}");
    fs::write(dir.path().join(SETTINGS), "half {").unwrap();
    let error = Results::open(dir.path(), &settings("tiny"), false).unwrap_err();
    assert!(matches!(error, ResultsError::Settings(_)));
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "a poem without an end",
        "a poem\nin two lines\n",
        "one line\n",
        "{\"name\": 3}\n",
    ] {
        fs::write(dir.path().join(RECORDS), text).unwrap();
        let error = Results::open(dir.path(), &settings("tiny"), false).unwrap_err();
        assert!(matches!(error, ResultsError::NotEntries(_)), "{text}");
        assert_eq!(fs::read_to_string(dir.path().join(RECORDS)).unwrap(), text);
        assert!(RecordReader::open(dir.path()).is_err());
    }
}

#[test]
fn what_can_not_be_read_or_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.jsonl");
    let error = RecordReader::open(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.jsonl"), "{error}");
    fs::write(&missing, "").unwrap();
    let error = Results::open(missing.join("x"), &settings("tiny"), false).unwrap_err();
    assert!(
        error.to_string().contains("cannot make the folder"),
        "{error}"
    );
}

#[test]
fn an_empty_file_has_no_records_and_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(RECORDS), "").unwrap();
    assert_eq!(RecordReader::open(dir.path()).unwrap().count(), 0);
    assert_eq!(open(dir.path(), true).found(), Found::default());
}
