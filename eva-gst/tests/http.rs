//! Videos behind an address: with range requests they are read like files, else refused in words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Clip, assert_exact_source, h264, steady, within};
use eva_gst::{CancelHandle, GstError, GstOptions, GstSource};

const LIMIT: Duration = Duration::from_secs(60);

/// How the server treats a request for `/a.mp4` and the like.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Ranges,
    /// Says that it does not serve parts.
    RefusesRanges,
    /// Sends the whole file whatever is asked.
    IgnoresRanges,
    /// Sends the head and the first bytes, then nothing more.
    Stalls,
    /// Accepts, and never answers.
    Silent,
}

/// A server on a free port of this machine, one thread a connection. Returns its address.
fn serve(files: Vec<(String, Vec<u8>)>, manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let files = Arc::new(files);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = Arc::clone(&files);
            // A client that hangs up is no failure.
            std::thread::spawn(move || drop(answer(stream, &files, manner)));
        }
    });
    address
}

fn answer(
    mut stream: TcpStream,
    files: &[(String, Vec<u8>)],
    manner: Manner,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (mut range, head_only) = (None, method == "HEAD");
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            let header = header.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("range: bytes=") {
                let (from, to) = value.trim().split_once('-').unwrap_or(("0", ""));
                range = Some((from.parse::<usize>().unwrap_or(0), to.parse::<usize>().ok()));
            }
        }
        if manner == Manner::Silent {
            // Until the client gives up.
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest)?;
            return Ok(());
        }
        if let Some(target) = path.strip_prefix("/moved") {
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
            )?;
            continue;
        }
        let Some((_, bytes)) = files.iter().find(|(name, _)| name == path) else {
            let status = if path == "/secret.mp4" {
                "403 Forbidden"
            } else if path == "/broken.mp4" {
                "500 Internal Server Error"
            } else {
                "404 Not Found"
            };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let accept = match manner {
            Manner::Ranges | Manner::Stalls => "Accept-Ranges: bytes\r\n",
            Manner::RefusesRanges => "Accept-Ranges: none\r\n",
            _ => "",
        };
        let parts = matches!(manner, Manner::Ranges | Manner::Stalls);
        let (from, to) = match range.filter(|_| parts) {
            Some((from, to)) => {
                let to = to.map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
                (from.min(to), to)
            }
            None => (0, bytes.len()),
        };
        let (status, place) = if range.is_some() && parts {
            let place = format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                to.max(1) - 1,
                bytes.len()
            );
            ("206 Partial Content", place)
        } else {
            ("200 OK", String::new())
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\n{accept}{place}Content-Length: {}\r\n\r\n",
            to - from
        )?;
        if head_only {
            continue;
        }
        if manner == Manner::Stalls {
            stream.write_all(&bytes[from..to.min(from + 2000)])?;
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest)?;
            return Ok(());
        }
        stream.write_all(&bytes[from..to])?;
    }
}

fn video(name: &str, mux: &str) -> (Vec<u64>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let clip = Clip {
        times: steady(150, 25),
        encode: &format!("{} ! {mux}", h264(30, 2)),
        caps: "",
    };
    let path = clip.file(&dir, name);
    (clip.times.clone(), std::fs::read(path).unwrap())
}

#[test]
fn a_server_with_ranges_serves_exact_frames() {
    let kinds = [
        ("/last.mp4", "mp4mux"),
        ("/first.mp4", "mp4mux faststart=true"),
        ("/fragments.mp4", "mp4mux fragment-duration=1000"),
        ("/a.mkv", "matroskamux"),
        ("/with%20space%23.ts", "mpegtsmux"),
    ];
    let mut files = Vec::new();
    let mut times = Vec::new();
    for (name, mux) in kinds {
        let (shown, bytes) = video("a", mux);
        times = shown;
        files.push((name.to_owned(), bytes));
    }
    let address = serve(files, Manner::Ranges);
    for (name, _) in kinds {
        let uri = format!("{address}{name}");
        let clip = Clip {
            times: times.clone(),
            encode: "",
            caps: "",
        };
        let mut source = GstSource::open_uri(&uri).unwrap();
        assert_exact_source(&mut source, &clip, 1_000_000, &uri);
    }
    let redirected = format!("{address}/moved/first.mp4");
    GstSource::open_uri(&redirected).unwrap();
}

#[test]
fn a_server_without_ranges_is_refused_in_words() {
    for manner in [Manner::RefusesRanges, Manner::IgnoresRanges] {
        for (name, mux) in [
            ("/last.mp4", "mp4mux"),
            ("/first.mp4", "mp4mux faststart=true"),
        ] {
            let address = serve(vec![(name.to_owned(), video("a", mux).1)], manner);
            let uri = format!("{address}{name}");
            let outcome = within(LIMIT, &uri.clone(), move || {
                let mut source = GstSource::open_uri(&uri)?;
                source.frames_at(&[4.0, 0.5, 5.0], 16, 8, &mut |_| {})
            });
            let refused = matches!(outcome, Err(GstError::NoRanges { .. }));
            // A server that ignores ranges is only found out by asking for one.
            let read_in_order = manner == Manner::IgnoresRanges && outcome.is_ok();
            assert!(refused || read_in_order, "{name}: {outcome:?}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains("download"), "{error}");
            }
        }
    }
}

#[test]
fn a_server_without_ranges_is_downloaded_from_where_that_is_allowed() {
    for manner in [Manner::RefusesRanges, Manner::IgnoresRanges] {
        for (name, mux) in [
            ("/last.mp4", "mp4mux"),
            ("/first.mp4", "mp4mux faststart=true"),
        ] {
            let (times, bytes) = video("a", mux);
            let clip = Clip {
                times,
                encode: "",
                caps: "",
            };
            let address = serve(vec![(name.to_owned(), bytes)], manner);
            let uri = format!("{address}{name}");
            within(LIMIT, &uri.clone(), move || {
                let options = GstOptions::new().with_download(true);
                let mut source = GstSource::open_uri_with(&uri, &options).unwrap();
                assert_exact_source(&mut source, &clip, 1_000_000, &uri);
                let missing = format!("{address}/missing.mp4");
                let error = GstSource::open_uri_with(&missing, &options).unwrap_err();
                assert!(matches!(error, GstError::NotFound { .. }), "{error}");
            });
        }
    }
}

#[test]
fn what_the_server_refuses_is_told_apart() {
    let address = serve(Vec::new(), Manner::Ranges);
    let open = |uri: String| {
        within(LIMIT, &uri.clone(), move || {
            GstSource::open_uri(&uri).unwrap_err()
        })
    };
    let missing = open(format!("{address}/missing.mp4"));
    assert!(matches!(missing, GstError::NotFound { .. }), "{missing}");
    let secret = open(format!("{address}/secret.mp4"));
    assert!(matches!(secret, GstError::Network { .. }), "{secret}");
    let broken = open(format!("{address}/broken.mp4"));
    assert!(matches!(broken, GstError::Network { .. }), "{broken}");
    // Nobody listens where somebody did.
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let nobody = open(format!("http://{gone}/a.mp4"));
    assert!(matches!(nobody, GstError::Network { .. }), "{nobody}");
}

#[test]
fn a_server_that_stops_answering_is_waited_for_as_long_as_allowed() {
    let bytes = video("a", "mp4mux faststart=true").1;
    for manner in [Manner::Stalls, Manner::Silent] {
        let address = serve(vec![("/a.mp4".to_owned(), bytes.clone())], manner);
        let uri = format!("{address}/a.mp4");
        let begin = Instant::now();
        let error = within(LIMIT, "stalled", move || {
            let options = GstOptions::new().with_timeout(Duration::from_secs(1));
            GstSource::open_uri_with(&uri, &options).unwrap_err()
        });
        assert!(matches!(error, GstError::Timeout { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(15));
    }
}

#[test]
fn opening_is_cancelled_while_a_server_is_silent() {
    let bytes = video("a", "mp4mux faststart=true").1;
    for manner in [Manner::Stalls, Manner::Silent] {
        let address = serve(vec![("/a.mp4".to_owned(), bytes.clone())], manner);
        let uri = format!("{address}/a.mp4");
        let handle = CancelHandle::new();
        let options = GstOptions::new().with_cancel(&handle);
        let opening = std::thread::spawn(move || GstSource::open_uri_with(&uri, &options));
        std::thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        while !handle.cancel() && !opening.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let outcome = within(LIMIT, "cancelled", move || opening.join().unwrap());
        let cancelled = matches!(outcome, Err(GstError::Cancelled { .. }));
        assert!(cancelled, "{outcome:?}");
        // Well before the default patience of 30 seconds.
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
