//! `s3mount demo`: an S3 server and a mount of its bucket in one process. Nothing of it is mocked:
//! the mount speaks HTTP to the server, and so can any other client.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::interrupts::Interrupts;
use super::serve::{self, Job};
use super::{Failure, Ready, Stay, daemon, rooms};
use crate::bucket::{Condition, PutOptions};
use crate::config::{Config, Options};
use crate::demo::{Server, ServerSettings};
use crate::error::Kind;
use crate::telemetry::{self, Log};

/// The bucket that is mounted.
pub const BUCKET: &str = "demo";
/// No secrets: anybody who can reach the server may use it.
pub const ACCESS_KEY: &str = "s3mount";
pub const SECRET_KEY: &str = "s3mount-demo";

/// What the user chose about the demo.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// `None`: a directory beside the temporary data.
    pub mountpoint: Option<PathBuf>,
    /// `None`: temporary, deleted at the end.
    pub data_dir: Option<PathBuf>,
    pub listen: SocketAddr,
    pub latency: Duration,
    pub mbps_per_connection: Option<u32>,
    /// `None`: the example hooks, where they are built.
    pub hooks: Option<PathBuf>,
    pub allow_other: bool,
    pub log: telemetry::Settings,
}

/// Serves only, in the foreground, until SIGINT or SIGTERM.
///
/// # Errors
/// Why the server could not start.
pub fn serve_only(settings: &DemoSettings) -> Result<(), Failure> {
    telemetry::log_to_stderr(settings.log);
    // Nothing is mounted: no place is needed for it.
    let mountpoint = settings.mountpoint.clone().or_else(|| settings.data_dir.clone());
    let place = Place::make(&DemoSettings { mountpoint, ..settings.clone() })?;
    serve::on_runtime(async {
        let mut interrupts = Interrupts::new()?;
        let server = Server::start(server_settings(settings, &place)).await?;
        let endpoint = server.endpoint_url();
        let text = format!(
            "serving bucket {BUCKET} at {endpoint}\n{}\
             With the same two variables it is mounted by\n\
             \x20 {} s3://{BUCKET} MOUNTPOINT --endpoint-url {endpoint}\n",
            clients(&endpoint),
            program()
        );
        let _ = Ready::foreground().tell(text);
        interrupts.next().await;
        server.stop().await;
        Ok(())
    })
}

/// Serves and mounts. In the background, the text for the terminal is returned when all is usable.
/// Must be called before any thread is started.
///
/// # Errors
/// Why there is no server or no mount.
pub fn run(settings: DemoSettings, stay: Stay) -> Result<String, Failure> {
    let work = move |ready| {
        let log = match stay {
            Stay::Foreground => telemetry::log_to_stderr(settings.log),
            Stay::Background => telemetry::log_to_file(settings.log),
        };
        let place = Place::make(&settings)?;
        sign_as_demo();
        serve::on_runtime(serve_and_mount(&settings, place, log, ready))
    };
    match stay {
        Stay::Foreground => work(Ready::foreground()).map(|()| String::new()),
        Stay::Background => daemon::in_background(work),
    }
}

/// Lets the AWS configuration of this process name the demo's keys, and nothing of the user's own.
fn sign_as_demo() {
    // SAFETY: called before any thread is started, so nobody reads the environment meanwhile.
    unsafe {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                std::env::remove_var(name);
            }
        }
        std::env::set_var("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        std::env::set_var("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        std::env::set_var("AWS_EC2_METADATA_DISABLED", "true");
        // The user's own files may name an endpoint, a role or a login of theirs.
        std::env::set_var("AWS_CONFIG_FILE", "/dev/null");
        std::env::set_var("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    }
}

async fn serve_and_mount(settings: &DemoSettings, place: Place, log: Log, ready: Ready) -> Result<(), Failure> {
    make_mountpoint(&place.mountpoint)?;
    let server = Server::start(server_settings(settings, &place)).await?;
    let hooks = settings.hooks.clone().or_else(example_hooks);
    let options = Options {
        bucket: Some(BUCKET.to_owned()),
        mountpoint: Some(place.mountpoint.clone()),
        endpoint_url: Some(server.endpoint_url()),
        region: Some("us-east-1".into()),
        allow_other: Some(settings.allow_other),
        hooks: hooks.clone(),
        state_dir: place.forgotten("state"),
        cache_dir: place.forgotten("cache"),
        ..Options::default()
    };
    let config = Config { log: settings.log, ..Config::resolve(options, None)? };
    make_directories(&config).await?;
    let job = Job {
        greeting: greeting(settings, &config, hooks.is_some()),
        // The port may change from start to start; the data is what makes it the same bucket.
        state_key: Some(format!("demo {}", place.data_dir.display())),
        config,
        log,
        ready,
    };
    let outcome = serve::serve(job).await;
    server.stop().await;
    drop(place);
    outcome?.conclude().await
}

/// A directory that exists is looked at later: it may be a dead mount.
fn make_mountpoint(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => fs::create_dir_all(path).map_err(|cause| {
            Failure::new(Kind::Usage, format!("cannot make the mountpoint {}: {cause}", path.display()))
        }),
        _ => Ok(()),
    }
}

/// The directories that the example hooks look at, so that one can copy into them at once.
async fn make_directories(config: &Config) -> Result<(), Failure> {
    let bucket = rooms::connect(config).await?.bucket;
    for key in ["photos/", "uploads/"] {
        let options = PutOptions { condition: Condition::IfAbsent, ..PutOptions::default() };
        match bucket.put(key, Bytes::new(), &options).await {
            Err(error) if error.kind != Kind::Changed => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Where the demo lives.
struct Place {
    data_dir: PathBuf,
    mountpoint: PathBuf,
    /// What the user gave no place for; removed at the end.
    temporary: Option<PathBuf>,
    /// Neither data nor state is to outlive the demo.
    forgets: bool,
}

impl Place {
    fn make(settings: &DemoSettings) -> Result<Self, Failure> {
        let failed = |cause: std::io::Error| Failure::new(Kind::Local, format!("cannot make a directory: {cause}"));
        let forgets = settings.data_dir.is_none();
        let needs_temporary = forgets || settings.mountpoint.is_none();
        let temporary = if needs_temporary {
            Some(tempfile::Builder::new().prefix("s3mount-demo-").tempdir().map_err(failed)?.keep())
        } else {
            None
        };
        let place = |given: &Option<PathBuf>, name: &str| match (given, &temporary) {
            (Some(path), _) => std::path::absolute(path).map_err(failed),
            (None, Some(dir)) => Ok(dir.join(name)),
            (None, None) => unreachable!("a temporary directory was made for what is not given"),
        };
        let (data_dir, mountpoint) = (place(&settings.data_dir, "data")?, place(&settings.mountpoint, "mnt")?);
        Ok(Self { data_dir, mountpoint, temporary, forgets })
    }

    /// Below the temporary directory, if nothing is to be remembered.
    fn forgotten(&self, name: &str) -> Option<PathBuf> {
        self.temporary.as_ref().filter(|_| self.forgets).map(|dir| dir.join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(temporary) = &self.temporary else { return };
        // Never recursively through a mount that could not be taken away.
        let _ = fs::remove_dir(temporary.join("mnt"));
        for name in ["data", "state", "cache"] {
            let _ = fs::remove_dir_all(temporary.join(name));
        }
        let _ = fs::remove_dir(temporary);
    }
}

fn server_settings(settings: &DemoSettings, place: &Place) -> ServerSettings {
    ServerSettings {
        data_dir: place.data_dir.clone(),
        listen: settings.listen,
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        latency: settings.latency,
        mbps_per_connection: settings.mbps_per_connection,
    }
}

/// The example hooks of this source tree, where they are built.
fn example_hooks() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    // REPOSITORY/target/PROFILE/s3mount
    let beside_program = program.ancestors().nth(3).map(|root| root.join("hooks"));
    let here = std::env::current_dir().ok().map(|dir| dir.join("hooks"));
    let is_built = |dir: &PathBuf| dir.join("hooks.toml").is_file() && dir.join("built/thumbnail.wasm").is_file();
    beside_program.into_iter().chain(here).find(is_built).map(|dir| dir.join("hooks.toml"))
}

fn clients(endpoint: &str) -> String {
    format!(
        "Any S3 client can talk to it:\n  AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} \
         aws --endpoint-url {endpoint} s3 ls s3://{BUCKET}/\n"
    )
}

/// This program as the user called it: it need not be installed.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "s3mount".to_owned())
}

fn greeting(settings: &DemoSettings, config: &Config, has_hooks: bool) -> String {
    let mountpoint = config.mountpoint.display();
    let endpoint = config.endpoint_url.as_deref().unwrap_or_default();
    let program = program();
    let hooks = if has_hooks && settings.hooks.is_none() {
        format!(
            "  cp some.jpg {mountpoint}/photos/      and a hook makes  {mountpoint}/thumbs/some.jpg\n\
             \x20 cp notes.txt.gz {mountpoint}/         and a hook makes  {mountpoint}/notes.txt\n\
             \x20 cp report.pdf {mountpoint}/uploads/   and a hook makes  {mountpoint}/uploads/report.pdf.sha256\n"
        )
    } else if has_hooks {
        String::new()
    } else {
        "  The example hooks are not built: run scripts/build-hooks, then the demo again.\n".to_owned()
    };
    let data = settings.data_dir.as_ref().map_or_else(
        || "the server ends too, and its data is gone".to_owned(),
        |dir| format!("the server ends too; its data stays in {}", dir.display()),
    );
    format!(
        "The bucket \"{BUCKET}\" of an S3 server in this program is mounted on {mountpoint}\n\nTry:\n{hooks}\
         \x20 {program} status {mountpoint}\n\n{}\nStop it:  {program} umount {mountpoint}   ({data})\n",
        clients(endpoint)
    )
}

impl From<crate::demo::Error> for Failure {
    fn from(error: crate::demo::Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> DemoSettings {
        DemoSettings {
            mountpoint: None,
            data_dir: None,
            listen: ([127, 0, 0, 1], 0).into(),
            latency: Duration::ZERO,
            mbps_per_connection: None,
            hooks: None,
            allow_other: false,
            log: telemetry::Settings::default(),
        }
    }

    #[test]
    fn what_is_temporary_goes_and_what_was_given_stays() {
        let given = tempfile::tempdir().unwrap();
        let data = given.path().join("data");
        let place = Place::make(&DemoSettings { data_dir: Some(data.clone()), ..settings() }).unwrap();
        fs::create_dir_all(&place.data_dir).unwrap();
        fs::create_dir_all(&place.mountpoint).unwrap();
        assert_eq!((&place.data_dir, place.forgotten("state")), (&data, None));
        let temporary = place.temporary.clone().unwrap();
        drop(place);
        assert!(data.exists() && !temporary.exists());
    }

    #[test]
    fn a_mount_that_is_still_there_is_not_emptied() {
        let place = Place::make(&settings()).unwrap();
        fs::create_dir_all(&place.mountpoint).unwrap();
        let file = place.mountpoint.join("file in the bucket");
        fs::write(&file, "x").unwrap();
        let temporary = place.temporary.clone().unwrap();
        drop(place);
        assert!(file.exists());
        fs::remove_dir_all(temporary).unwrap();
    }
}
