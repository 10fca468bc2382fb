//! The standard AWS chain (environment, profiles, SSO, processes, web identity, containers, EC2) and
//! one HTTP client for all of it.

use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, IdentityCache, ProvideCredentials, RequestChecksumCalculation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use hyper::Uri;

use super::answers::ToldAnswers;
use super::headers::ReadableHeaders;
use super::wishes::AskedHeaders;
use super::{ConnectSettings, failure};
use crate::bucket::clock::ServerClock;
use crate::bucket::identity::Identity;
use crate::bucket::{Error, Result};
use crate::error::Kind;

/// Connections kept open for the next request. hyper's default is no limit; a burst of closes must
/// not leave thousands.
const IDLE_CONNECTIONS: usize = 256;
/// Servers close idle connections after 20 s and more; a connection that is closed under a request
/// costs a retry.
const IDLE_FOR: Duration = Duration::from_secs(15);
/// On EC2 the metadata service answers in milliseconds, elsewhere never.
const METADATA_TIMEOUT: Duration = Duration::from_millis(1500);
const DEFAULT_REGION: &str = "us-east-1";

/// A loaded configuration, from which clients are built.
#[derive(Clone, Debug)]
pub(super) struct Sdk {
    shared: SdkConfig,
    pub(super) endpoint_url: Option<String>,
    path_style: bool,
    /// `None`: requests are not signed.
    identity: Option<Arc<Identity>>,
    accelerate: bool,
    asked: AskedHeaders,
    pub(super) clock: ServerClock,
    pub(super) region: String,
}

/// Loads the configuration and makes sure that there are credentials.
pub(super) async fn load(settings: &ConnectSettings) -> Result<Sdk> {
    check_bucket_name(settings)?;
    let asked = AskedHeaders::of(&settings.wishes).map_err(|wrong| failure(settings, Kind::Usage, wrong))?;
    let endpoint_url = endpoint_url(settings);
    let host = endpoint_url.as_deref().map(|url| host_of(settings, url)).transpose()?;
    let http = http_client(host.as_deref());
    let region = region(settings, &http, endpoint_url.is_none()).await;
    let shared = shared_config(settings, http.clone(), &region).await;
    let identity = if settings.no_sign_request { None } else { Some(identity(settings, http, &region).await?) };
    let path_style = settings.force_path_style.unwrap_or_else(|| host.is_some_and(|host| !is_aws(&host)));
    let (accelerate, clock) = (settings.accelerate, ServerClock::default());
    Ok(Sdk { shared, endpoint_url, path_style, identity, accelerate, asked, clock, region })
}

/// What the AWS configuration says, and the settings before it.
async fn shared_config(settings: &ConnectSettings, http: SharedHttpClient, region: &str) -> SdkConfig {
    let region = Region::new(region.to_owned());
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .region(region.clone())
        .timeout_config(TimeoutConfig::builder().connect_timeout(settings.connect_timeout).build());
    if settings.profile.is_some() || settings.credentials_file.is_some() {
        // As with the AWS CLI, a profile that was asked for goes before the environment.
        let provider = ProviderConfig::without_region().with_region(Some(region)).with_http_client(http);
        let mut asked = ProfileFileCredentialsProvider::builder().configure(&provider);
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
            asked = asked.profile_name(profile);
        }
        if let Some(file) = &settings.credentials_file {
            let files = EnvConfigFiles::builder().include_default_config_file(true);
            asked = asked.profile_files(files.with_file(EnvConfigFileKind::Credentials, file).build());
        }
        loader = loader.credentials_provider(asked.build());
    }
    if let Some(own) = &settings.credentials {
        loader =
            loader.credentials_provider(Credentials::new(&own.access_key, &own.secret_key, None, None, "settings"));
    }
    if settings.no_sign_request {
        loader = loader.no_credentials();
    }
    if let Some(dual_stack) = settings.dual_stack {
        loader = loader.use_dual_stack(dual_stack);
    }
    if let Some(fips) = settings.fips {
        loader = loader.use_fips(fips);
    }
    loader.load().await
}

impl Sdk {
    /// The same, which asks for what is wished of another bucket.
    pub(super) fn for_bucket(&self, settings: &ConnectSettings) -> Result<Self> {
        check_bucket_name(settings)?;
        let asked = AskedHeaders::of(&settings.wishes).map_err(|wrong| failure(settings, Kind::Usage, wrong))?;
        Ok(Self { asked, ..self.clone() })
    }

    pub(super) fn credentials(&self) -> Option<SharedCredentialsProvider> {
        let identity: Arc<dyn ProvideCredentials> = self.identity.clone()?;
        Some(SharedCredentialsProvider::new(identity))
    }

    /// The same, for who has to tell it that S3 refused.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// As [`Sdk::client`], for what must be deleted again.
    pub(super) fn client_without_lock(&self) -> Client {
        Self { asked: self.asked.without_lock(), ..self.clone() }.client()
    }

    /// A client that neither retries nor hashes by itself: see `bucket::s3`.
    pub(super) fn client(&self) -> Client {
        let mut config = aws_sdk_s3::config::Builder::from(&self.shared)
            .region(Region::new(self.region.clone()))
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(aws_sdk_s3::config::ResponseChecksumValidation::WhenRequired)
            .interceptor(ReadableHeaders)
            .interceptor(ToldAnswers)
            .interceptor(self.clock.clone())
            .interceptor(self.asked.clone())
            .accelerate(self.accelerate)
            .force_path_style(self.path_style);
        if let Some(url) = &self.endpoint_url {
            config = config.endpoint_url(url);
        }
        // It keeps its credentials itself.
        config = match self.credentials() {
            Some(identity) => config.credentials_provider(identity).identity_cache(IdentityCache::no_cache()),
            None => config.allow_no_auth(),
        };
        Client::from_conf(config.build())
    }

    pub(super) fn in_region(self, region: String) -> Self {
        Self { region, ..self }
    }

    /// Whether requests carry a signature.
    pub(super) fn is_signed(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether requests go to AWS itself.
    pub(super) fn is_aws(&self) -> bool {
        let host = self.endpoint_url.as_deref().and_then(|url| url.parse::<Uri>().ok()?.host().map(str::to_owned));
        self.endpoint_url.is_none() || host.is_some_and(|host| is_aws(&host))
    }

    /// Where requests go, in words.
    pub(super) fn endpoint(&self) -> String {
        let of_profile = || self.shared.endpoint_url().map(|url| url.trim_end_matches('/').to_owned());
        self.endpoint_url.clone().or_else(of_profile).unwrap_or_else(|| of_aws(&self.region))
    }
}

fn of_aws(region: &str) -> String {
    format!("https://s3.{region}.amazonaws.com")
}

/// Where the first request goes, as far as it is known without a look into profiles.
pub(super) fn first_endpoint(settings: &ConnectSettings) -> String {
    endpoint_url(settings).unwrap_or_else(|| of_aws(settings.region.as_deref().unwrap_or(DEFAULT_REGION)))
}

/// The flag, else what the AWS configuration names for S3 or for everything. Profiles may name one
/// too; the SDK reads those itself, and such a server is addressed as AWS is.
pub(super) fn endpoint_url(settings: &ConnectSettings) -> Option<String> {
    let ignored = std::env::var("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_ok_and(|value| value == "true");
    let from_environment = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().filter(|_| !ignored);
    let named = from_environment.filter_map(|name| std::env::var(name).ok()).find(|url| !url.is_empty());
    let url = settings.endpoint_url.clone().or(named)?;
    Some(url.trim_end_matches('/').to_owned())
}

fn host_of(settings: &ConnectSettings, url: &str) -> Result<String> {
    let wrong = || failure(settings, Kind::Usage, format!("{url:?} is no endpoint URL: give http[s]://host[:port]"));
    let parsed: Uri = url.parse().map_err(|_| wrong())?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) {
        return Err(wrong());
    }
    parsed.host().filter(|host| !host.is_empty()).map(str::to_owned).ok_or_else(wrong)
}

fn is_aws(host: &str) -> bool {
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|domain| host.ends_with(domain))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Names and ARNs that a request line can hold; whether the bucket exists, the server says.
fn check_bucket_name(settings: &ConnectSettings) -> Result<()> {
    let name = &settings.bucket;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let fits = name.starts_with("arn:") || (name.len() >= 3 && name.len() <= 255 && name.bytes().all(plain));
    if fits { Ok(()) } else { Err(failure(settings, Kind::Usage, format!("{name:?} cannot be the name of a bucket"))) }
}

/// One client for S3 and for credential providers: ring for TLS, a proxy from the environment unless
/// the server is on this machine.
fn http_client(host: Option<&str>) -> SharedHttpClient {
    let proxy = if host.is_some_and(is_loopback) { ProxyConfig::disabled() } else { ProxyConfig::from_env() };
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .enable_tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_FOR)
            .proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
    })
}

/// The flag, the environment, the profile, on AWS the machine's own region; else `us-east-1`, from
/// where S3 tells the right one.
async fn region(settings: &ConnectSettings, http: &SharedHttpClient, on_aws: bool) -> String {
    if let Some(region) = &settings.region {
        return region.clone();
    }
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return region.to_string();
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    if let Some(region) = profile.build().region().await {
        return region.to_string();
    }
    let metadata_off = std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if on_aws && !settings.no_sign_request && !metadata_off {
        let provider = ProviderConfig::without_region().with_http_client(http.clone());
        let metadata = ImdsRegionProvider::builder().configure(&provider).build();
        if let Ok(Some(region)) = tokio::time::timeout(METADATA_TIMEOUT, metadata.region()).await {
            return region.to_string();
        }
    }
    DEFAULT_REGION.to_owned()
}

/// Asks the chain once, so that its failure is told as what it is and not as a failed request.
async fn identity(settings: &ConnectSettings, http: SharedHttpClient, region: &str) -> Result<Arc<Identity>> {
    let (again, region) = (settings.clone(), region.to_owned());
    let identity = Identity::new(move || {
        let (settings, http, region) = (again.clone(), http.clone(), region.clone());
        Box::pin(async move { shared_config(&settings, http, &region).await.credentials_provider() })
    });
    match identity.provide_credentials().await {
        Ok(_) => Ok(Arc::new(identity)),
        Err(error) => Err(no_credentials(settings, &what_is_missing(&error))),
    }
}

/// The whole chain came up empty (its end is the machine's metadata service), or one provider failed.
fn what_is_missing(error: &dyn std::error::Error) -> String {
    let cause = crate::bucket::s3::root_cause(error);
    let empty = ["in chain", "IMDS", "metadata"].iter().any(|word| cause.contains(word));
    if empty { "none in the environment, the AWS profiles, or from this machine's role".to_owned() } else { cause }
}

fn no_credentials(settings: &ConnectSettings, why: &str) -> Error {
    let whose = settings.profile.as_ref().map(|name| format!(" of profile {name:?}")).unwrap_or_default();
    failure(settings, Kind::NoCredentials, format!("found no AWS credentials{whose}: {why}"))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::config::http::HttpRequest;
    use aws_sdk_s3::presigning::PresigningConfig;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use parking_lot::Mutex;

    use super::*;
    use crate::bucket::client::StaticCredentials;

    #[test]
    fn aws_and_this_machine_are_known_by_name() {
        assert!(is_aws("s3.eu-west-1.amazonaws.com") && is_aws("s3.cn-north-1.amazonaws.com.cn"));
        assert!(!is_aws("minio.local") && !is_aws("amazonaws.com.evil.example"));
        assert!(is_loopback("127.0.0.1") && is_loopback("[::1]") && is_loopback("localhost"));
        assert!(!is_loopback("10.0.0.1"));
    }

    /// Where a GET would go: nothing is sent.
    async fn host(change: impl FnOnce(&mut ConnectSettings)) -> String {
        let mut settings = ConnectSettings::new("bucket", "");
        let (access_key, secret_key) = ("k".to_owned(), "s".to_owned());
        settings.credentials = Some(StaticCredentials { access_key, secret_key });
        settings.region = Some("eu-west-1".to_owned());
        change(&mut settings);
        let get = load(&settings).await.unwrap().client().get_object().bucket(&settings.bucket).key("key");
        let signed = get.presigned(PresigningConfig::expires_in(Duration::from_mins(1)).unwrap()).await.unwrap();
        signed.uri().parse::<Uri>().unwrap().host().unwrap().to_owned()
    }

    #[tokio::test]
    async fn requests_go_where_the_options_say() {
        assert_eq!(host(|_| {}).await, "bucket.s3.eu-west-1.amazonaws.com");
        assert_eq!(host(|s| s.fips = Some(true)).await, "bucket.s3-fips.eu-west-1.amazonaws.com");
        assert_eq!(host(|s| s.dual_stack = Some(true)).await, "bucket.s3.dualstack.eu-west-1.amazonaws.com");
        assert_eq!(host(|s| s.accelerate = true).await, "bucket.s3-accelerate.amazonaws.com");
        let both = |s: &mut ConnectSettings| (s.accelerate, s.dual_stack) = (true, Some(true));
        assert_eq!(host(both).await, "bucket.s3-accelerate.dualstack.amazonaws.com");
        let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine";
        let at_point = host(|s| s.bucket = point.to_owned()).await;
        assert_eq!(at_point, "mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com");
        assert_eq!(host(|s| s.endpoint_url = Some("http://nas:9000".to_owned())).await, "nas");
    }

    /// Keeps the last request instead of sending it.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Option<HttpRequest>>>);

    impl HttpConnector for Kept {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            *self.0.lock() = Some(request);
            HttpConnectorFuture::ready(Err(ConnectorError::other("kept".into(), None)))
        }
    }

    #[tokio::test]
    async fn a_multi_region_access_point_is_asked_with_a_signature_for_every_region() {
        let mut settings = ConnectSettings::new("arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap", "");
        let (access_key, secret_key) = ("k".to_owned(), "s".to_owned());
        settings.credentials = Some(StaticCredentials { access_key, secret_key });
        settings.region = Some("eu-west-1".to_owned());
        let (kept, client) = (Kept::default(), load(&settings).await.unwrap().client());
        let connector = SharedHttpConnector::new(kept.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        let client = Client::from_conf(client.config().to_builder().http_client(http).build());
        client.get_object().bucket(&settings.bucket).key("a/b c").send().await.unwrap_err();
        let request = kept.0.lock().take().unwrap();
        let url = "https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com/a/b%20c?x-id=GetObject";
        assert_eq!(request.uri(), url);
        assert_eq!(request.headers().get("x-amz-region-set"), Some("*"));
        let signed = request.headers().get("authorization").unwrap();
        assert!(signed.starts_with("AWS4-ECDSA-P256-SHA256 Credential=k/"), "{signed}");
        assert!(signed.contains("/s3/aws4_request, ") && !signed.contains("eu-west-1"), "{signed}");
        assert!(signed.contains("x-amz-region-set"), "a header that is not signed is not believed: {signed}");
    }

    #[test]
    fn impossible_names_and_endpoints_are_the_users_mistake() {
        for name in ["", "a", "a b", "a/b", "ü-bucket"] {
            let error = check_bucket_name(&ConnectSettings::new(name, "")).unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{name:?}");
        }
        let settings = ConnectSettings::new("bucket", "");
        for url in ["localhost:9000", "ftp://host", "http://", "not a url"] {
            assert_eq!(host_of(&settings, url).unwrap_err().kind, Kind::Usage, "{url:?}");
        }
        assert_eq!(host_of(&settings, "http://127.0.0.1:9000").unwrap(), "127.0.0.1");
    }
}
