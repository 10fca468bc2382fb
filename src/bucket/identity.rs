//! The credentials that requests are signed with: kept until shortly before they expire, and asked for anew
//! when S3 refuses them.
//!
//! The SDK's own cache cannot be told to forget, and what its providers have read of the AWS files they never
//! read again. So a provider that failed, or whose credentials were refused, is built anew.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Answer;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// New credentials are asked for so long before the old ones expire, but after no less than three quarters of
/// their time.
const EARLY: Duration = Duration::from_mins(1);
/// A login helper (SSO, `credential_process`) may take its time, but not all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions to a provider that has just failed, or given what S3 refuses.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where S3 has not said why it refuses: it is seldom the credentials.
const LONG_PAUSE: Duration = Duration::from_mins(1);

type Provider = Option<SharedCredentialsProvider>;

/// Where credentials come from, and those that are there.
pub struct Identity {
    build: Box<dyn Fn() -> BoxFuture<'static, Provider> + Send + Sync>,
    /// Counts the credentials that were different ones.
    generation: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    provider: Provider,
    credentials: Option<Credentials>,
    /// `None`: they do not expire.
    renew_at: Option<SystemTime>,
    /// When it was last asked in vain.
    in_vain: Option<Instant>,
    /// When it was last asked because of a refusal without a reason.
    suspected: Option<Instant>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    /// Asks what `build` builds.
    pub fn new(build: impl Fn() -> BoxFuture<'static, Provider> + Send + Sync + 'static) -> Self {
        Self { build: Box::new(build), generation: AtomicU64::new(0), kept: Mutex::default() }
    }

    /// Which credentials are in use, for [`Identity::replace`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// After S3 has refused a request that was signed by this generation: whether there are other credentials
    /// now. `is_certain`: S3 said that it was because of them.
    pub async fn replace(&self, refused: u64, is_certain: bool) -> bool {
        let mut kept = self.kept.lock().await;
        let was_asked = if is_certain { is_within(PAUSE, kept.in_vain) } else { is_within(LONG_PAUSE, kept.suspected) };
        if self.generation() == refused && !was_asked {
            kept.provider = None;
            if !is_certain {
                kept.suspected = Some(Instant::now());
            }
            if let Err(error) = self.ask(&mut kept).await {
                tracing::warn!(%error, "S3 refused the credentials, and there are no others");
            }
            if is_certain && self.generation() == refused {
                kept.in_vain = Some(Instant::now());
            }
        }
        self.generation() != refused
    }

    async fn current(&self) -> Result<Credentials, CredentialsError> {
        let mut kept = self.kept.lock().await;
        match kept.credentials.clone() {
            Some(credentials) if kept.is_fresh() => Ok(credentials),
            // Until they expire a provider may fail.
            Some(old) if old.expiry().is_some_and(|expiry| expiry > SystemTime::now()) => {
                if is_within(PAUSE, kept.in_vain) {
                    return Ok(old);
                }
                let asked = self.ask(&mut kept).await;
                Ok(asked.inspect_err(|error| tracing::warn!(%error, "no new credentials yet")).unwrap_or(old))
            }
            _ => self.ask(&mut kept).await,
        }
    }

    async fn ask(&self, kept: &mut Kept) -> Result<Credentials, CredentialsError> {
        if kept.provider.is_none() {
            kept.provider = (self.build)().await;
        }
        let provider = kept.provider.clone().ok_or_else(|| CredentialsError::not_loaded("no credentials provider"))?;
        let answer = tokio::time::timeout(PATIENCE, provider.provide_credentials()).await;
        let answer = answer.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PATIENCE)));
        let new = answer.inspect_err(|_| (kept.provider, kept.in_vain) = (None, Some(Instant::now())))?;
        if kept.credentials.as_ref().is_none_or(|old| !are_same(old, &new)) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        kept.renew_at = new.expiry().map(renewal);
        kept.credentials = Some(new.clone());
        Ok(new)
    }
}

impl Kept {
    fn is_fresh(&self) -> bool {
        self.renew_at.is_none_or(|at| SystemTime::now() < at)
    }
}

impl ProvideCredentials for Identity {
    fn provide_credentials<'a>(&'a self) -> Answer<'a>
    where
        Self: 'a,
    {
        Answer::new(self.current())
    }
}

fn is_within(pause: Duration, moment: Option<Instant>) -> bool {
    moment.is_some_and(|moment| moment.elapsed() < pause)
}

/// When to ask again for what has come now and expires then.
fn renewal(expiry: SystemTime) -> SystemTime {
    let life = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    expiry - EARLY.min(life / 4)
}

fn are_same(one: &Credentials, other: &Credentials) -> bool {
    one.access_key_id() == other.access_key_id()
        && one.secret_access_key() == other.secret_access_key()
        && one.session_token() == other.session_token()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Each provider that is built gives its number as the key, for that long.
    fn numbered(life: Option<Duration>, built: &Arc<AtomicU64>) -> Identity {
        let built = Arc::clone(built);
        Identity::new(move || {
            let key = built.fetch_add(1, Ordering::Relaxed).to_string();
            let expiry = life.map(|life| SystemTime::now() + life);
            let provider = SharedCredentialsProvider::new(Credentials::new(key, "secret", None, expiry, "test"));
            Box::pin(async { Some(provider) })
        })
    }

    async fn key(identity: &Identity) -> String {
        identity.provide_credentials().await.unwrap().access_key_id().to_owned()
    }

    #[tokio::test]
    async fn what_does_not_expire_is_kept_until_it_is_refused() {
        let built = Arc::default();
        let identity = numbered(None, &built);
        assert_eq!((key(&identity).await, key(&identity).await), ("0".into(), "0".into()));
        let refused = identity.generation();
        assert!(identity.replace(refused, false).await);
        assert!(identity.replace(refused, true).await, "it has been replaced already");
        assert_eq!((key(&identity).await, built.load(Ordering::Relaxed)), ("1".into(), 2));
        let refused = identity.generation();
        assert!(!identity.replace(refused, false).await, "a refusal without a reason is none to ask so soon again");
        assert!(identity.replace(refused, true).await);
        assert_eq!(key(&identity).await, "2");
    }

    #[tokio::test]
    async fn who_has_no_other_credentials_is_not_asked_at_once_again() {
        let built: Arc<AtomicU64> = Arc::default();
        let count = Arc::clone(&built);
        let identity = Identity::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Some(SharedCredentialsProvider::new(Credentials::new("k", "s", None, None, "test"))) })
        });
        key(&identity).await;
        assert!(!identity.replace(identity.generation(), true).await);
        assert_eq!(built.load(Ordering::Relaxed), 2, "asked once more");
        // However slow this machine is.
        let noted = identity.kept.lock().await.in_vain.replace(Instant::now() + Duration::from_hours(1));
        assert!(noted.is_some() && !identity.replace(identity.generation(), true).await);
        assert_eq!(built.load(Ordering::Relaxed), 2, "and not again");
        identity.kept.lock().await.in_vain = None;
        assert!(!identity.replace(identity.generation(), true).await);
        assert_eq!(built.load(Ordering::Relaxed), 3, "but a while later");
    }

    #[tokio::test]
    async fn a_provider_that_fails_is_built_anew_and_what_is_still_good_is_used() {
        let built: Arc<AtomicU64> = Arc::default();
        let count = Arc::clone(&built);
        let identity = Identity::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            // Due at once, and good for a while.
            let credentials = Credentials::new("k", "s", None, Some(SystemTime::now() + EARLY), "test");
            Box::pin(async move { (number == 0).then(|| SharedCredentialsProvider::new(credentials)) })
        });
        assert_eq!(key(&identity).await, "k");
        {
            let mut kept = identity.kept.lock().await;
            (kept.provider, kept.renew_at) = (None, Some(SystemTime::UNIX_EPOCH));
        }
        assert_eq!(key(&identity).await, "k");
        assert_eq!(built.load(Ordering::Relaxed), 2);
    }
}
