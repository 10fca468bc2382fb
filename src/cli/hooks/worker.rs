//! `s3mount hooks worker --from sqs:URL --hooks FILE BUCKET[/PREFIX]`

use std::time::Duration;

use crate::app::{self, Failure};
use crate::cli::OfBucket;
use crate::config::Span;

/// Long enough for a worker that has to wait for its turn, short enough for who waits for a dead one's work.
const DEFAULT_VISIBILITY: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the hooks work on: BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX
    #[arg(value_name = "BUCKET[/PREFIX]")]
    bucket: String,
    /// The queue that S3 sends its notifications to: sqs:https://sqs.REGION.amazonaws.com/ACCOUNT/NAME
    #[arg(long, value_name = "sqs:URL")]
    from: String,
    /// After this time others get what a worker had that died, 2s to 12h [default: 30s]
    #[arg(long, value_name = "TIME")]
    visibility: Option<Span>,
    #[command(flatten)]
    given: OfBucket,
}

impl Arguments {
    /// Works in the foreground until it is told to end.
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.given.config(&self.bucket)?;
        app::run_worker(config, &self.from, self.visibility.map_or(DEFAULT_VISIBILITY, |span| span.0))
    }
}
