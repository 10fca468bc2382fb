//! `s3mount demo [MOUNTPOINT]`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::app::demo::{self, DemoSettings};
use crate::app::{Failure, Stay};
use crate::telemetry::{Format, Level, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to mount; made if it is not there [default: a temporary directory]
    #[arg(conflicts_with = "server_only")]
    mountpoint: Option<PathBuf>,
    /// Keep the server's data here, also for the next time [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address that the server listens on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Delay of each answer in milliseconds; 20 is about what S3 has
    #[arg(long, value_name = "N", default_value_t = 0)]
    latency_ms: u64,
    /// Speed of each connection in megabytes per second; 90 is about what S3 has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    mbps_per_connection: Option<u32>,
    /// Only the server, without a mount; stays until Ctrl-C
    #[arg(long)]
    server_only: bool,
    /// Hooks to run instead of the examples
    #[arg(long, value_name = "FILE")]
    hooks: Option<PathBuf>,
    /// Let other users into the mount
    #[arg(long)]
    allow_other: bool,
    /// Stay, and log to the terminal; Ctrl-C ends everything
    #[arg(short, long)]
    foreground: bool,
    /// What is logged
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "S3MOUNT_LOG_LEVEL")]
    log_level: Level,
    /// How a log line looks
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "S3MOUNT_LOG_FORMAT")]
    log_format: Format,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = DemoSettings {
            mountpoint: self.mountpoint,
            data_dir: self.data,
            listen: self.listen,
            latency: Duration::from_millis(self.latency_ms),
            mbps_per_connection: self.mbps_per_connection,
            hooks: self.hooks,
            allow_other: self.allow_other,
            log: Settings { level: self.log_level, format: self.log_format },
        };
        if self.server_only {
            return demo::serve_only(&settings);
        }
        let stay = if self.foreground { Stay::Foreground } else { Stay::Background };
        super::say(&demo::run(settings, stay)?);
        Ok(())
    }
}
