//! `s3mount demo`
use crate::app::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        todo!()
    }
}
