//! Models by name, from a hub on loopback that fails in every way.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/hub.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Method;
use eva::burn::{BurnPolicy, DeviceChoice};
use eva::hub::{Hub, HubError, HubModel, Snapshot};
use serde_json::json;
use server::{Asked, COMMIT, FakeHub, Faults, MODEL, hash};

const WEIGHTS: &str = "model.safetensors";

/// eva-tiny as a repository.
fn tiny() -> Vec<(&'static str, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    eva::burn::bundled::unpack(dir.path()).unwrap();
    let read = |name| (name, fs::read(dir.path().join(name)).unwrap());
    let mut files = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        WEIGHTS,
    ]
    .map(read)
    .to_vec();
    files.push(("README.md", b"words".to_vec()));
    files
}

fn weights() -> Vec<u8> {
    tiny()
        .into_iter()
        .find(|(name, _)| *name == WEIGHTS)
        .unwrap()
        .1
}

/// A small repository with weights of any bytes.
fn small() -> Vec<(&'static str, Vec<u8>)> {
    let noise: Vec<u8> = (0..300_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    vec![
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"a\": 1}".to_vec()),
        (WEIGHTS, noise),
    ]
}

struct Place {
    hub: Hub,
    cache: tempfile::TempDir,
}

impl Place {
    fn new(server: &FakeHub) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::new(&server.url(), cache.path()).unwrap();
        let hub = hub
            .with_tries(3, Duration::from_millis(1))
            .with_timeout(Duration::from_secs(5));
        Self { hub, cache }
    }

    fn fetch(&self) -> Result<Snapshot, HubError> {
        self.hub.fetch(&MODEL.parse().unwrap(), &mut |_| {})
    }

    fn model(&self) -> PathBuf {
        self.cache.path().join("models--some-one--tiny")
    }

    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.model().join("blobs")).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

fn gets_of<'a>(asked: &'a [Asked], file: &str) -> Vec<&'a Asked> {
    let wanted = |one: &&Asked| one.method == Method::GET && one.path.ends_with(file);
    let from = |one: &&Asked| {
        one.host
            == if file == "config.json" {
                "hub"
            } else {
                "storage"
            }
    };
    asked.iter().filter(wanted).filter(from).collect()
}

#[test]
fn a_model_comes_once_and_loads() {
    let server = FakeHub::new(&tiny());
    let place = Place::new(&server);
    let mut told = Vec::new();
    let model = MODEL.parse().unwrap();
    let snapshot = place.hub.fetch(&model, &mut |progress| {
        told.push((progress.file.to_owned(), progress.done, progress.size));
    });
    let snapshot = snapshot.unwrap();
    assert_eq!(snapshot.revision, COMMIT);
    assert_eq!(snapshot.dir, place.model().join("snapshots").join(COMMIT));
    for (name, content) in tiny() {
        let found = fs::read(snapshot.dir.join(name)).ok();
        let wanted = (name != "README.md").then_some(content);
        assert_eq!(found, wanted, "{name}");
    }
    // The Python tools' layout.
    let sum = hash(WEIGHTS, &weights());
    assert!(place.blobs().contains(&sum), "{:?}", place.blobs());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.dir.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(&sum)
    );
    let noted = fs::read_to_string(place.model().join("refs/main")).unwrap();
    assert_eq!(noted, COMMIT);
    let (last, done, size) = told.last().unwrap();
    assert_eq!(
        (last.as_str(), done, *size),
        (WEIGHTS, size, weights().len() as u64)
    );
    let device = DeviceChoice::Cpu.open().unwrap();
    BurnPolicy::load(&snapshot.dir, &device).unwrap();

    server.asked();
    assert_eq!(place.fetch().unwrap(), snapshot);
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].path, "/api/models/some-one/tiny/revision/main");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let hub = place.hub.clone().with_token("hf_secret").unwrap();
    assert!(!format!("{hub:?}").contains("hf_secret"));
    hub.fetch(&MODEL.parse().unwrap(), &mut |_| {}).unwrap();
    let asked = server.asked();
    for one in &asked {
        let token = (one.host == "hub").then(|| "Bearer hf_secret".to_owned());
        assert_eq!(one.token, token, "{one:?}");
    }
    assert!(asked.iter().any(|one| one.host == "storage"));
    // Not in what an error says either.
    for code in ["GatedRepo", "", "Other"] {
        server.fail(Faults {
            refuse: vec![(401, code)],
            ..Faults::default()
        });
        let error = hub.fetch(&MODEL.parse().unwrap(), &mut |_| {}).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hf_secret"),
            "{error:?}"
        );
    }
}

#[test]
fn a_connection_that_breaks_goes_on_at_the_byte() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    // The first cut is in the middle of the tokenizer, which is kept at the other host too.
    server.fail(Faults {
        cuts: vec![usize::MAX, 4, usize::MAX, 100_000, 70_000, 50_000, 10_000],
        ..Faults::default()
    });
    let snapshot = place.fetch().unwrap();
    assert_eq!(fs::read(snapshot.dir.join(WEIGHTS)).unwrap(), small()[2].1);
    let asked = server.asked();
    let ranges: Vec<_> = gets_of(&asked, WEIGHTS)
        .iter()
        .map(|one| one.range.clone())
        .collect();
    let from = |byte: usize| Some(format!("bytes={byte}-"));
    // More breaks than tries: each of them brought something.
    let wanted = [
        None,
        from(100_000),
        from(170_000),
        from(220_000),
        from(230_000),
    ];
    assert_eq!(ranges, wanted);
}

#[test]
fn a_download_that_ended_goes_on_in_the_next_process() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    server.fail(Faults {
        cuts: vec![usize::MAX, usize::MAX, 100_000, 0, 0, 0],
        ..Faults::default()
    });
    let error = place.fetch().unwrap_err();
    assert!(
        matches!(error, HubError::Interrupted { tries: 3, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(WEIGHTS), "{error}");
    let sum = hash(WEIGHTS, &small()[2].1);
    assert!(place.blobs().contains(&format!("{sum}.incomplete")));
    assert!(!place.model().join("refs/main").exists());
    server.asked();
    server.fail(Faults::default());
    place.fetch().unwrap();
    let asked = server.asked();
    let gets = gets_of(&asked, WEIGHTS);
    assert_eq!(gets.len(), 1);
    assert_eq!(gets[0].range.as_deref(), Some("bytes=100000-"));
    assert!(place.blobs().contains(&sum));
    assert!(!place.blobs().contains(&format!("{sum}.incomplete")));
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    server.fail(Faults {
        cuts: vec![usize::MAX, usize::MAX, 100_000],
        no_ranges: true,
        ..Faults::default()
    });
    let snapshot = place.fetch().unwrap();
    assert_eq!(fs::read(snapshot.dir.join(WEIGHTS)).unwrap(), small()[2].1);
}

#[test]
fn other_bytes_than_announced_are_refused() {
    let server = FakeHub::new(&small());
    for off in [-1000, 1000] {
        let place = Place::new(&server);
        server.fail(Faults {
            size_off: off,
            ..Faults::default()
        });
        let error = place.fetch().unwrap_err();
        // The smallest file has fewer bytes than it is off by.
        let HubError::Size { .. } = error else {
            assert!(off < 0, "{error:?}");
            continue;
        };
        assert!(error.to_string().contains("bytes, not"), "{error}");
    }
    let place = Place::new(&server);
    server.fail(Faults {
        damaged: true,
        ..Faults::default()
    });
    let error = place.fetch().unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    // Nothing is left that the next try would go on with.
    let left = place.blobs();
    assert!(
        left.iter().all(|name| !name.ends_with(".incomplete")),
        "{left:?}"
    );
    server.fail(Faults::default());
    place.fetch().unwrap();
}

#[test]
fn a_damaged_beginning_is_fetched_anew() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let sum = hash(WEIGHTS, &small()[2].1);
    let blobs = place.model().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let incomplete = blobs.join(format!("{sum}.incomplete"));
    // A crash of the machine may leave zeros; another tool may leave too much.
    for content in [vec![0; 5000], vec![0; 400_000]] {
        fs::write(&incomplete, content).unwrap();
        let snapshot = place.fetch().unwrap();
        assert_eq!(fs::read(snapshot.dir.join(WEIGHTS)).unwrap(), small()[2].1);
        fs::remove_file(snapshot.dir.join(WEIGHTS)).unwrap();
        fs::remove_file(blobs.join(&sum)).unwrap();
    }
}

#[test]
fn refusals_say_what_to_do() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let fail = |refuse: &[(u16, &'static str)]| {
        server.fail(Faults {
            refuse: refuse.to_vec(),
            ..Faults::default()
        });
        place.fetch()
    };
    let error = fail(&[(401, "RepoNotFound")]).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains(MODEL), "{error}");
    let error = fail(&[(404, "RevisionNotFound")]).unwrap_err();
    assert!(
        error.to_string().contains("revision main of some-one/tiny"),
        "{error}"
    );
    let error = fail(&[(403, "GatedRepo")]).unwrap_err();
    assert!(
        matches!(error, HubError::Gated { status: 403, .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("/some-one/tiny, and set HF_TOKEN"),
        "{error}"
    );
    let error = fail(&[(401, "")]).unwrap_err();
    assert!(matches!(error, HubError::Unauthorized { .. }), "{error:?}");
    let error = fail(&[(418, "")]).unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 418, .. }),
        "{error:?}"
    );
    let error = fail(&[(503, ""); 3]).unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error:?}");
    assert!(error.to_string().contains("status 503"), "{error}");
    fail(&[(503, ""), (429, "")]).unwrap();
    // The list is there, a file is not.
    let server = FakeHub::listing(&small(), &["generation_config.json"]);
    let place = Place::new(&server);
    let error = place.fetch().unwrap_err().to_string();
    assert!(
        error.contains("generation_config.json of some-one/tiny"),
        "{error}"
    );
    // Nothing listens.
    let gone = Hub::new("http://127.0.0.1:1", place.cache.path()).unwrap();
    let gone = gone.with_tries(2, Duration::from_millis(1));
    let error = gone
        .fetch(&MODEL.parse().unwrap(), &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE=1"), "{error}");
    // Only other forms of weights.
    let server = FakeHub::new(&[("config.json", b"{}".to_vec()), ("model.bin", vec![1])]);
    let error = Place::new(&server).fetch().unwrap_err();
    assert!(matches!(error, HubError::NoWeights { .. }), "{error:?}");
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in [
        "../evil.json",
        "tokenizer/../../evil.json",
        "/etc/evil",
        "a\\..\\evil",
    ] {
        let server = FakeHub::listing(&small(), &[name]);
        let place = Place::new(&server);
        let error = place.fetch().unwrap_err();
        assert!(matches!(error, HubError::UnsafeName { .. }), "{error:?}");
        let left: Vec<_> = fs::read_dir(place.cache.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let index = json!({"weight_map": {"a": "../../../evil.safetensors"}}).to_string();
    let mut files = small();
    files[2] = ("model.safetensors.index.json", index.into_bytes());
    let error = Place::new(&FakeHub::new(&files)).fetch().unwrap_err();
    assert!(matches!(error, HubError::UnsafeName { .. }), "{error:?}");
}

#[test]
fn sharded_weights_come_as_the_index_names_them() {
    let first = "model-00001-of-00002.safetensors";
    let second = "model-00002-of-00002.safetensors";
    let index = json!({"weight_map": {"a": first, "b": second, "c": first}}).to_string();
    let mut files = small();
    files[2] = ("model.safetensors.index.json", index.into_bytes());
    files.push((first, vec![1; 1000]));
    files.push((second, vec![2; 2000]));
    files.push(("consolidated.safetensors", vec![3; 3000]));
    let server = FakeHub::new(&files);
    let place = Place::new(&server);
    let snapshot = place.fetch().unwrap();
    assert!(snapshot.dir.join(first).exists() && snapshot.dir.join(second).exists());
    assert!(!snapshot.dir.join("consolidated.safetensors").exists());
}

#[test]
fn several_at_once_fetch_each_file_once() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    server.fail(Faults {
        slow: Duration::from_millis(100),
        ..Faults::default()
    });
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| place.fetch())).collect();
        for fetch in fetches {
            let dir = fetch.join().unwrap().unwrap().dir;
            assert_eq!(fs::read(dir.join(WEIGHTS)).unwrap(), small()[2].1);
        }
    });
    let asked = server.asked();
    assert_eq!(gets_of(&asked, WEIGHTS).len(), 1);
    assert_eq!(gets_of(&asked, "config.json").len(), 1);
}

#[test]
fn what_another_process_brings_is_seen_and_one_that_stopped_is_given_up() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let sum = hash(WEIGHTS, &small()[2].1);
    let locks = place.cache.path().join(".locks/models--some-one--tiny");
    let (lock, blobs) = (
        locks.join(format!("{sum}.lock")),
        place.model().join("blobs"),
    );
    fs::create_dir_all(&locks).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{sum}.incomplete")), [7; 1000]).unwrap();
    let holder = fs::File::create(&lock).unwrap();
    holder.lock().unwrap();
    let hub = place.hub.clone().with_patience(Duration::from_millis(1));
    let mut told = None;
    let error = hub.fetch(&MODEL.parse().unwrap(), &mut |progress| {
        told = Some((progress.file.to_owned(), progress.done));
    });
    let error = error.unwrap_err();
    let HubError::Locked { path, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(path, &lock);
    assert_eq!(told, Some((WEIGHTS.to_owned(), 1000)));
    drop(holder);
    place.fetch().unwrap();
}

#[test]
fn without_the_network_the_cache_is_used() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let offline = place.hub.clone().with_offline(true);
    let model: HubModel = MODEL.parse().unwrap();
    let fetch = |model: &HubModel| offline.fetch(model, &mut |_| {});
    let error = fetch(&model).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error:?}");
    let snapshot = place.fetch().unwrap();
    server.asked();
    assert_eq!(fetch(&model).unwrap(), snapshot);
    assert_eq!(fetch(&model.at(COMMIT).unwrap()).unwrap(), snapshot);
    assert_eq!(server.asked(), []);
    let error = fetch(&model.at("other").unwrap()).unwrap_err().to_string();
    assert!(error.contains("revision other"), "{error}");
    fs::remove_file(snapshot.dir.join(WEIGHTS)).unwrap();
    let error = fetch(&model).unwrap_err().to_string();
    assert!(
        error.contains(WEIGHTS) && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    // The configuration alone is still there.
    assert_eq!(offline.fetch_config(&model).unwrap(), snapshot);
}

#[test]
fn what_the_python_tools_left_is_used() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    // Their cache on a system without links: files lie in the snapshot itself.
    let dir = place.model().join("snapshots").join(COMMIT);
    fs::create_dir_all(&dir).unwrap();
    for (name, content) in small() {
        fs::write(dir.join(name), content).unwrap();
    }
    fs::create_dir_all(place.model().join("refs")).unwrap();
    fs::write(place.model().join("refs/main"), COMMIT).unwrap();
    assert_eq!(place.fetch().unwrap().dir, dir);
    assert_eq!(server.asked().len(), 1, "the list alone");
}

#[test]
fn a_revision_is_pinned_to_its_commit() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let branch: HubModel = format!("{MODEL}@refs/pr/7").parse().unwrap();
    let snapshot = place.hub.fetch(&branch, &mut |_| {}).unwrap();
    assert_eq!(snapshot.revision, COMMIT);
    let asked = server.asked();
    assert_eq!(
        asked[0].path,
        "/api/models/some-one/tiny/revision/refs%2Fpr%2F7"
    );
    for one in asked[1..].iter().filter(|one| one.host == "hub") {
        let start = format!("/{MODEL}/resolve/{COMMIT}/");
        assert!(one.path.starts_with(&start), "{one:?}");
    }
    let noted = fs::read_to_string(place.model().join("refs/refs/pr/7")).unwrap();
    assert_eq!(noted, COMMIT);
}

#[test]
fn the_configuration_comes_alone() {
    let server = FakeHub::new(&tiny());
    let place = Place::new(&server);
    let dir = place.hub.fetch_config(&MODEL.parse().unwrap()).unwrap().dir;
    assert!(dir.join("config.json").exists());
    assert!(!dir.join("tokenizer.json").exists());
    assert!(!dir.join(WEIGHTS).exists());
}

#[test]
fn a_silent_server_is_given_up() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    server.fail(Faults {
        stall: Some(1000),
        ..Faults::default()
    });
    let hub = place.hub.clone().with_timeout(Duration::from_millis(200));
    let hub = hub.with_tries(1, Duration::ZERO);
    let error = hub.fetch(&MODEL.parse().unwrap(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error:?}");
}

/// The device that is always full stands for a disk that is.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let server = FakeHub::new(&small());
    let place = Place::new(&server);
    let blobs = place.model().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let sum = hash(WEIGHTS, &small()[2].1);
    let incomplete = blobs.join(format!("{sum}.incomplete"));
    std::os::unix::fs::symlink("/dev/full", &incomplete).unwrap();
    let error = place.fetch().unwrap_err();
    let HubError::NoSpace { path, needed } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((path, *needed), (&incomplete, 300_000));
}
