//! `s3mount [mount] [OPTIONS] BUCKET[/PREFIX] MOUNTPOINT`

use std::path::PathBuf;

use crate::app::{self, Failure, Stay};
use crate::config::{Config, Options};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to mount: BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX; several, each as a directory:
    /// NAME=BUCKET[/PREFIX],…
    #[arg(value_name = "BUCKET[/PREFIX]", required_unless_present = "config")]
    pub(super) bucket: Option<String>,
    /// Directory where the bucket appears; must exist
    #[arg(required_unless_present = "config")]
    pub(super) mountpoint: Option<PathBuf>,
    /// Stay, and log to the terminal; Ctrl-C unmounts
    #[arg(short, long)]
    foreground: bool,
    /// TOML file with options; keys are the long options without --. With `bucket` and `mountpoint` in it,
    /// `s3mount --config FILE` says all
    #[arg(long, value_name = "FILE", env = "S3MOUNT_CONFIG")]
    config: Option<PathBuf>,
    /// Options as mount(8) and /etc/fstab give them: ro, allow_other, uid=1000, endpoint_url=…
    #[arg(short = 'o', value_name = "OPT[,OPT]")]
    mount_options: Option<String>,
    #[command(flatten)]
    pub(super) options: Options,
}

impl Arguments {
    /// Mounts. Nothing is printed: it worked.
    pub(super) fn run(self) -> Result<(), Failure> {
        let said = Options { bucket: self.bucket, mountpoint: self.mountpoint, ..self.options };
        let config = Config::resolve(said, self.config.as_deref())?;
        let stay = if self.foreground { Stay::Foreground } else { Stay::Background };
        app::mount(config, stay)
    }
}
