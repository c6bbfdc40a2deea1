//! A hub of one repository, `acme/tiny`, on a loopback port.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The commit that the fake repository stands at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How a file is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    /// In four pieces, with this pause before each.
    Slowly(Duration),
    /// The first time only half of it; then well.
    CutOffOnce,
    /// Only half of it, and then nothing, with the connection left open.
    FallsSilent,
    /// As many bytes as announced, but others.
    WrongBytes,
    /// Announced, and then answered with an error.
    ErrorInstead,
    /// Only to those who show a token.
    Gated,
    /// Not even an answer.
    NoAnswer,
}

/// One file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) content: Vec<u8>,
    /// As the hub does it: the SHA-256 for large files, a Git hash for small ones.
    pub(crate) etag: String,
    pub(crate) manner: Manner,
}

pub(crate) struct FakeHub {
    pub(crate) endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
}

struct Repository {
    files: BTreeMap<String, Served>,
    transfers: AtomicUsize,
}

impl FakeHub {
    pub(crate) fn serving(files: impl IntoIterator<Item = (&'static str, Served)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let files = files.into_iter().map(|(name, served)| (name.to_owned(), served)).collect();
        let repository = Arc::new(Repository { files, transfers: AtomicUsize::new(0) });
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (log, stop) = (Arc::clone(&requests), Arc::clone(&stopped));
        thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !stop.load(Ordering::SeqCst)).flatten()
            {
                let (repository, log) = (Arc::clone(&repository), Arc::clone(&log));
                // A client that gives up closes the connection; that is its right.
                thread::spawn(move || drop(answer(stream, &repository, &log)));
            }
        });
        Self { endpoint, requests, stopped }
    }

    /// A port on which nobody listens.
    pub(crate) fn nowhere() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("an address"))
    }

    /// The requests so far: `GET config.json`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no test panics while it holds the log").clone()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let address = self.endpoint.trim_start_matches("http://");
        drop(TcpStream::connect(address)); // wakes the thread that accepts
    }
}

fn answer(
    mut stream: TcpStream,
    repository: &Repository,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let name = path
        .rsplit("/resolve/")
        .next()
        .and_then(|rest| rest.split_once('/'))
        .map_or("", |(_, name)| name);
    log.lock().expect("no thread panics while it holds the log").push(format!("{method} {name}"));
    let Some(served) = repository.files.get(name).filter(|_| path.starts_with("/acme/tiny/"))
    else {
        let missing =
            format!("x-repo-commit: {COMMIT}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return write!(stream, "HTTP/1.1 404 Not Found\r\n{missing}");
    };
    match served.manner {
        Manner::NoAnswer => {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Manner::Gated if !head.contains("authorization: Bearer test-token") => {
            write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        }
        Manner::ErrorInstead if method == "GET" => {
            write!(
                stream,
                "HTTP/1.1 410 Gone\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngone"
            )
        }
        _ => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\netag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n",
                served.etag,
                served.content.len()
            )?;
            if method == "GET" { send(stream, served, repository) } else { Ok(()) }
        }
    }
}

fn send(mut stream: TcpStream, served: &Served, repository: &Repository) -> std::io::Result<()> {
    let content = &served.content;
    let half = &content[..content.len() / 2];
    match served.manner {
        Manner::Slowly(pause) => content.chunks(content.len().div_ceil(4)).try_for_each(|piece| {
            thread::sleep(pause);
            stream.write_all(piece)
        }),
        Manner::CutOffOnce if repository.transfers.fetch_add(1, Ordering::SeqCst) == 0 => {
            stream.write_all(half)
        }
        Manner::FallsSilent => {
            stream.write_all(half)?;
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Manner::WrongBytes => {
            stream.write_all(&content.iter().map(|byte| byte ^ 1).collect::<Vec<_>>())
        }
        _ => stream.write_all(content),
    }
}
