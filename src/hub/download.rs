//! Bringing files, a piece at a time: [`Download`].

use std::fs;
use std::io::Read as _;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::CONTENT_RANGE;

use super::cache::Repository;
use super::http::{Failure, Http, Remote};
use super::lock::lock;
use super::partial::Partial;
use super::{HubError, HubModel, Progress};
use crate::web::innermost;

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// Characters of a SHA-256 in hexadecimal.
const SHA256: usize = 64;

/// Files of one commit, on their way into the cache.
pub(super) struct Download<'a> {
    pub(super) http: &'a Http,
    pub(super) model: &'a HubModel,
    pub(super) repository: &'a Repository,
    pub(super) revision: &'a str,
    /// How long another process may hold a file and bring nothing of it.
    pub(super) patience: Duration,
}

impl Download<'_> {
    /// Brings those of the files that are not there.
    pub(super) fn fetch(
        &self,
        files: &[&str],
        progress: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<(), HubError> {
        let snapshot = self.repository.snapshot(self.revision);
        let mut missing = Vec::new();
        for file in files {
            // Follows the link: one that leads nowhere is not there.
            if !snapshot.join(file).exists() {
                let remote = self.http.look(self.model, self.revision, file)?;
                missing.push((*file, remote));
            }
        }
        // A hub can say any size.
        let sizes = missing.iter().map(|(_, remote)| remote.size);
        let size = sizes.fold(0, u64::saturating_add);
        let mut before: u64 = 0;
        for (file, remote) in missing {
            self.file(file, &remote, &mut |part| {
                let done = before.saturating_add(part);
                progress(&Progress { file, done, size });
            })?;
            before = before.saturating_add(remote.size);
        }
        Ok(())
    }

    fn file(&self, file: &str, remote: &Remote, tell: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let blob = self.repository.blob(&remote.hash);
        let incomplete = blob.with_file_name(format!("{}.incomplete", remote.hash));
        let _lock = lock(
            &self.repository.lock(&remote.hash),
            self.patience,
            &mut || {
                // What another process brings is seen to come too.
                let arrived = fs::metadata(&incomplete).map_or(0, |found| found.len());
                tell(arrived.min(remote.size));
                arrived
            },
        )?;
        // Another process may have brought it meanwhile.
        if self.repository.snapshot(self.revision).join(file).exists() {
            return Ok(());
        }
        let whole = fs::metadata(&blob).is_ok_and(|found| found.len() == remote.size);
        if !whole {
            let mut partial = Partial::open(incomplete, remote.size)?;
            tell(partial.len());
            let resumed = partial.len() > 0;
            self.bring(file, &mut partial, tell)?;
            let mut found = damage(&partial, remote);
            if found.is_some() && resumed {
                // What was there from before may be what is damaged.
                tracing::warn!(model = %self.model, file, "damaged: fetched again from the start");
                partial.clear()?;
                self.bring(file, &mut partial, tell)?;
                found = damage(&partial, remote);
            }
            if let Some(found) = found {
                partial.remove();
                return Err(HubError::Damaged {
                    model: self.model.to_string(),
                    file: file.to_owned(),
                    expected: remote.hash.clone(),
                    found,
                });
            }
            partial.finish(&blob)?;
        }
        tell(remote.size);
        self.repository.link(self.revision, file, &remote.hash)
    }

    /// Fetches until the file is whole, or nothing comes any more.
    fn bring(
        &self,
        file: &str,
        partial: &mut Partial,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let mut tries = 0;
        while !partial.is_whole() {
            let from = partial.len();
            let Err(failure) = self.rest(file, partial, tell) else {
                continue;
            };
            // What brings bytes may go on as long as it likes.
            if partial.len() > from {
                tries = 0;
            }
            self.http.again(self.model, file, failure, &mut tries)?;
        }
        Ok(())
    }

    /// One request for what is missing.
    fn rest(
        &self,
        file: &str,
        partial: &mut Partial,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let from = partial.len();
        let opened = self.http.open(self.model, self.revision, file, from);
        let mut response = opened?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(from) => {}
            // The server gives no parts: all of it, once more.
            StatusCode::OK if from == 0 => {}
            StatusCode::OK => partial.clear().map_err(Failure::Last)?,
            _ => {
                partial.clear().map_err(Failure::Last)?;
                return Err(Failure::Again(
                    "another part came than was asked".to_owned(),
                ));
            }
        }
        let expected = partial.size();
        let wrong_size = |found| {
            Failure::Last(HubError::Size {
                model: self.model.to_string(),
                file: file.to_owned(),
                expected,
                found,
            })
        };
        if let Some(announced) = response.content_length()
            && partial.len() + announced != expected
        {
            return Err(wrong_size(partial.len() + announced));
        }
        let mut piece = vec![0; PIECE];
        loop {
            let read = response.read(&mut piece);
            let read = read.map_err(|error| Failure::Again(innermost(&error)))?;
            if read == 0 {
                break;
            }
            if partial.len() + read as u64 > expected {
                let found = partial.len() + read as u64;
                partial.clear().map_err(Failure::Last)?;
                return Err(wrong_size(found));
            }
            let bytes = piece.get(..read).unwrap_or_default();
            partial.push(bytes).map_err(Failure::Last)?;
            tell(partial.len());
        }
        if partial.is_whole() {
            Ok(())
        } else {
            Err(Failure::Again("the connection ended early".to_owned()))
        }
    }
}

/// The place from which on a part is.
fn begins_at(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (from, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    from.parse().ok()
}

/// The SHA-256 of what came, if it is not the one that it should have.
fn damage(partial: &Partial, remote: &Remote) -> Option<String> {
    let known = remote.hash.len() == SHA256;
    let found = partial.sha256();
    (known && !found.eq_ignore_ascii_case(&remote.hash)).then_some(found)
}
