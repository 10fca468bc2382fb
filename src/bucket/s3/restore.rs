//! Bringing archived objects back for some days: asked for seldom, so outside of the trait.

use aws_sdk_s3::types::{GlacierJobParameters, RestoreRequest, Tier};

use super::S3Bucket;
use super::errors::plain;
use crate::bucket::Result;
use crate::error::Kind;

const RESTORE: &str = "RestoreObject";

/// How soon, and how dear (AWS: "Understanding archive retrieval options").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreTier {
    /// Minutes; not from DEEP_ARCHIVE
    Expedited,
    /// Hours
    #[default]
    Standard,
    /// Up to two days, and the cheapest
    Bulk,
}

impl S3Bucket {
    /// `RestoreObject`: asks for a copy that can be read for so many days. One that is on its way, or
    /// there, is as good.
    ///
    /// # Errors
    /// As of any request; [`Kind::Refused`] for what is in no archive.
    pub async fn restore(&self, key: &str, days: u32, tier: RestoreTier) -> Result<()> {
        let tier = match tier {
            RestoreTier::Expedited => Tier::Expedited,
            RestoreTier::Standard => Tier::Standard,
            RestoreTier::Bulk => Tier::Bulk,
        };
        let parameters = GlacierJobParameters::builder().tier(tier).build();
        let parameters = parameters.map_err(|error| plain(Kind::Refused, RESTORE, key, error.to_string()))?;
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        let request = RestoreRequest::builder().days(days).glacier_job_parameters(parameters).build();
        let call = self.client.restore_object().bucket(&self.name).key(key).restore_request(request);
        match self.send(RESTORE, key, call.send()).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("RestoreAlreadyInProgress") => Ok(()),
            // Of an object in no archive S3 says the same as of one that can't be read.
            Err(error) if error.kind == Kind::Archived => {
                Err(plain(Kind::Refused, RESTORE, key, "it is in no archive: it can be read as it is"))
            }
            Err(error) => Err(error),
        }
    }
}
