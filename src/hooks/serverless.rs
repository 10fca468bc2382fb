//! `serverless.yml` → `hooks.toml`: the part of the Serverless Framework's files that means something
//! here, translated line by line, so that defaults, limits and checks are those of every hook.
//!
//! What only says how AWS is to be set up (region, roles, tags) is passed over by name; what would
//! change what happens and can't be done here is an error.

mod triggers;

use std::path::Path;

use super::yaml::{self, Entry, Node, Problem, Value};
use triggers::{Trigger, triggers, write_triggers};

/// As the Framework has them.
const MEMORY_DEFAULT_MIB: &str = "1024";
const TIMEOUT_DEFAULT_S: &str = "6";

/// Keys that say nothing here, by where they stand.
const IGNORED_TOP: [&str; 11] = [
    "service",
    "frameworkVersion",
    "configValidationMode",
    "deprecationNotificationMode",
    "disabledDeprecations",
    "app",
    "org",
    "useDotenv",
    "console",
    "custom",
    "package",
];
const IGNORED_PROVIDER: [&str; 21] = [
    "runtime",
    "region",
    "stage",
    "profile",
    "stackName",
    "deploymentBucket",
    "deploymentPrefix",
    "deploymentMethod",
    "iam",
    "iamRoleStatements",
    "role",
    "tags",
    "stackTags",
    "logRetentionInDays",
    "logs",
    "tracing",
    "architecture",
    "versionFunctions",
    "lambdaHashingVersion",
    "rolePermissionsBoundary",
    "endpointType",
];
const NO_URL_SETTINGS: &str = "`url` is true or false here: there is neither CORS nor an authorizer";
const IGNORED_FUNCTION: [&str; 12] = [
    "description",
    "runtime",
    "architecture",
    "tags",
    "role",
    "iamRoleStatements",
    "iamRoleStatementsName",
    "logRetentionInDays",
    "tracing",
    "versionFunction",
    "disableLogs",
    "provisionedConcurrency",
];
const IGNORED_PACKAGE: [&str; 5] = ["individually", "patterns", "include", "exclude", "excludeDevDependencies"];

/// A settings file, and for each of its lines the one that it comes from.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) toml: String,
    pub(super) lines: Vec<usize>,
}

type Checked<T> = std::result::Result<T, Problem>;

/// Whether a file is of this kind, by its name.
pub(super) fn is_meant(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("yml") || end.eq_ignore_ascii_case("yaml"))
}

/// Translates a file for the mount of a bucket, if one is given. An error names the function.
pub(super) fn translate(text: &str, bucket: Option<&str>) -> std::result::Result<Translated, (String, Problem)> {
    let nowhere = |problem| (String::new(), problem);
    let root = yaml::parse(text).map_err(nowhere)?;
    let mut provider = Provider::default();
    let mut functions: &[Entry] = &[];
    for entry in map(&root, "the file").map_err(nowhere)? {
        match entry.name.as_str() {
            "provider" => provider = Provider::read(&entry.node).map_err(nowhere)?,
            "functions" => functions = map(&entry.node, "`functions`").map_err(nowhere)?,
            name if IGNORED_TOP.contains(&name) => {}
            _ => return Err(nowhere(unknown(entry, "", "provider and functions"))),
        }
    }
    let mut translated = Translated::default();
    for entry in functions {
        let named = |problem| (entry.name.clone(), problem);
        let function = Function::read(entry, bucket).map_err(named)?;
        function.write(&provider, &mut translated).map_err(named)?;
    }
    Ok(translated)
}

/// A text and its line.
type Line<'a> = (usize, &'a str);

/// What holds for all functions that say nothing else.
#[derive(Default)]
struct Provider<'a> {
    memory: Option<Line<'a>>,
    timeout: Option<Line<'a>>,
    environment: Vec<(&'a str, Line<'a>)>,
}

impl<'a> Provider<'a> {
    fn read(node: &'a Node) -> Checked<Self> {
        let mut provider = Self::default();
        for entry in map(node, "`provider`")? {
            match entry.name.as_str() {
                "name" if text(&entry.node)?.1 == "aws" => {}
                "name" => return Err(Problem::new(entry.line, "the provider is aws: hooks are like Lambda functions")),
                "memorySize" => provider.memory = Some(number(&entry.node)?),
                "timeout" => provider.timeout = Some(number(&entry.node)?),
                "environment" => provider.environment = environment(&entry.node)?,
                name if IGNORED_PROVIDER.contains(&name) => {}
                _ => return Err(unknown(entry, "provider.", "memorySize, timeout and environment")),
            }
        }
        Ok(provider)
    }
}

/// The line of a URL that is wanted.
fn url(node: &Node) -> Checked<Option<usize>> {
    match text(node) {
        Ok((line, "true")) => Ok(Some(line)),
        Ok((_, "false")) => Ok(None),
        _ => Err(Problem::new(node.line, NO_URL_SETTINGS)),
    }
}

/// One function, before defaults.
struct Function<'a> {
    name: Line<'a>,
    handler: Option<Line<'a>>,
    artifact: Option<Line<'a>>,
    memory: Option<Line<'a>>,
    timeout: Option<Line<'a>>,
    storage: Option<Line<'a>>,
    environment: Vec<(&'a str, Line<'a>)>,
    concurrency: Option<Line<'a>>,
    retries: Option<Line<'a>>,
    max_age: Option<Line<'a>>,
    on_success: Option<(usize, String)>,
    on_failure: Option<(usize, String)>,
    url: Option<usize>,
    triggers: Vec<Trigger<'a>>,
}

impl<'a> Function<'a> {
    fn read(entry: &'a Entry, bucket: Option<&str>) -> Checked<Self> {
        let mut function = Self {
            name: (entry.line, &entry.name),
            handler: None,
            artifact: None,
            memory: None,
            timeout: None,
            storage: None,
            environment: Vec::new(),
            concurrency: None,
            retries: None,
            max_age: None,
            on_success: None,
            on_failure: None,
            url: None,
            triggers: Vec::new(),
        };
        for entry in map(&entry.node, "a function")? {
            let node = &entry.node;
            match entry.name.as_str() {
                "handler" => function.handler = Some(text(node)?),
                "package" => function.artifact = artifact(node)?,
                "memorySize" => function.memory = Some(number(node)?),
                "timeout" => function.timeout = Some(number(node)?),
                "ephemeralStorageSize" => function.storage = Some(number(node)?),
                "environment" => function.environment = environment(node)?,
                "reservedConcurrency" => function.concurrency = Some(number(node)?),
                "maximumRetryAttempts" => function.retries = Some(number(node)?),
                "maximumEventAge" => function.max_age = Some(number(node)?),
                "destinations" => function.read_destinations(node)?,
                "url" => function.url = url(node)?,
                "events" => function.triggers = triggers(node, bucket)?,
                name if IGNORED_FUNCTION.contains(&name) => {}
                _ => {
                    let known = "handler, package.artifact, memorySize, timeout, ephemeralStorageSize, environment, \
                         reservedConcurrency, maximumRetryAttempts, maximumEventAge, destinations, url and events";
                    return Err(unknown(entry, "", known));
                }
            }
        }
        Ok(function)
    }

    fn read_destinations(&mut self, node: &Node) -> Checked<()> {
        for entry in map(node, "`destinations`")? {
            let place = match entry.name.as_str() {
                "onSuccess" => &mut self.on_success,
                "onFailure" => &mut self.on_failure,
                _ => return Err(unknown(entry, "destinations.", "onSuccess and onFailure")),
            };
            *place = Some(destination(&entry.node)?);
        }
        Ok(())
    }

    fn write(&self, provider: &Provider, to: &mut Translated) -> Checked<()> {
        let (line, name) = self.name;
        to.add(line, "[[hook]]");
        to.set("name", (line, name));
        let (line, module) = self.module()?;
        to.set("wasm", (line, &module));
        to.unit("memory", self.memory.or(provider.memory).unwrap_or((line, MEMORY_DEFAULT_MIB)), "M");
        to.unit("timeout", self.timeout.or(provider.timeout).unwrap_or((line, TIMEOUT_DEFAULT_S)), "s");
        if let Some(storage) = self.storage {
            to.unit("storage", storage, "M");
        }
        if let Some(max_age) = self.max_age {
            to.unit("max-age", max_age, "s");
        }
        for (key, given) in [("on-success", &self.on_success), ("on-failure", &self.on_failure)] {
            if let Some((line, destination)) = given {
                to.set(key, (*line, destination));
            }
        }
        for (key, given) in [("concurrency", self.concurrency), ("retries", self.retries)] {
            if let Some((line, number)) = given {
                to.add(line, &format!("{key} = {number}"));
            }
        }
        if let Some(line) = self.url {
            to.add(line, "url = true");
        }
        write_triggers(&self.triggers, to)?;
        // A table takes all keys that follow: it stands last.
        let own = |name: &str| self.environment.iter().any(|(known, _)| *known == name);
        let inherited = provider.environment.iter().filter(|(name, _)| !own(name));
        let mut variables = self.environment.iter().chain(inherited).peekable();
        if let Some((_, (line, _))) = variables.peek() {
            to.add(*line, "[hook.env]");
        }
        for (name, value) in variables {
            to.set(&quoted(name), *value);
        }
        Ok(())
    }

    /// The module: the artifact, or what the handler names, or the `.wasm` of the handler's file.
    fn module(&self) -> Checked<(usize, String)> {
        let is_module = |path: &str| Path::new(path).extension().is_some_and(|end| end == "wasm" || end == "wat");
        match (self.artifact, self.handler) {
            (Some((line, path)), _) if is_module(path) => Ok((line, path.to_owned())),
            (Some((line, path)), _) => Err(Problem::new(line, format!("the artifact {path} is no .wasm or .wat file"))),
            (None, Some((line, path))) if is_module(path) => Ok((line, path.to_owned())),
            (None, Some((line, path))) => {
                let file = path.rsplit_once('.').map_or(path, |(file, _)| file);
                Ok((line, format!("{file}.wasm")))
            }
            (None, None) => Err(Problem::new(self.name.0, "neither handler nor package.artifact names its module")),
        }
    }
}

/// Another function of the file by its name, or a queue by its ARN; the ARN also as `{type, arn}`.
fn destination(node: &Node) -> Checked<(usize, String)> {
    let (line, said) = match &node.value {
        Value::Map(entries) => {
            let arn = entries.iter().find(|entry| entry.name == "arn");
            text(&arn.ok_or_else(|| Problem::new(node.line, "a destination has an arn"))?.node)?
        }
        _ => text(node)?,
    };
    let words: Vec<&str> = said.split(':').collect();
    match words[..] {
        [name] => Ok((line, format!("hook:{name}"))),
        ["arn", "aws", "sqs", region, account, queue] => {
            Ok((line, format!("sqs:https://sqs.{region}.amazonaws.com/{account}/{queue}")))
        }
        _ => Err(Problem::new(line, format!("{said} is neither a function of this file nor the ARN of an SQS queue"))),
    }
}

fn artifact(node: &Node) -> Checked<Option<Line<'_>>> {
    let mut artifact = None;
    for entry in map(node, "`package`")? {
        match entry.name.as_str() {
            "artifact" => artifact = Some(text(&entry.node)?),
            name if IGNORED_PACKAGE.contains(&name) => {}
            _ => return Err(unknown(entry, "package.", "artifact")),
        }
    }
    Ok(artifact)
}

fn environment(node: &Node) -> Checked<Vec<(&str, Line<'_>)>> {
    map(node, "`environment`")?.iter().map(|entry| Ok((entry.name.as_str(), text(&entry.node)?))).collect()
}

fn map<'a>(node: &'a Node, what: &str) -> Checked<&'a [Entry]> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        _ => Err(Problem::new(node.line, format!("{what} is no mapping of keys to values"))),
    }
}

fn list<'a>(node: &'a Node, what: &str) -> Checked<&'a [Node]> {
    match &node.value {
        Value::List(nodes) => Ok(nodes),
        Value::Null => Ok(&[]),
        _ => Err(Problem::new(node.line, format!("{what} is no list"))),
    }
}

fn text(node: &Node) -> Checked<Line<'_>> {
    let Value::Scalar(text) = &node.value else {
        return Err(Problem::new(node.line, "a plain text stands here in what this version reads"));
    };
    if text.contains("${") {
        let problem = format!("variables such as {} are not resolved here: write the value", text.escape_debug());
        return Err(Problem::new(node.line, problem));
    }
    Ok((node.line, text))
}

fn number(node: &Node) -> Checked<Line<'_>> {
    let (line, text) = text(node)?;
    // As TOML writes it: no sign, no zeros before.
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text => Ok((line, text)),
        _ => Err(Problem::new(line, format!("\"{}\" is no whole number", text.escape_debug()))),
    }
}

fn unknown(entry: &Entry, place: &str, known: &str) -> Problem {
    let name = entry.name.escape_debug();
    Problem::new(entry.line, format!("`{place}{name}` means nothing here; this version reads {known}"))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Translated {
    /// Adds text that comes from one line.
    fn add(&mut self, line: usize, text: &str) {
        for part in text.split('\n') {
            self.toml.push_str(part);
            self.toml.push('\n');
            self.lines.push(line);
        }
    }

    fn set(&mut self, key: &str, (line, value): Line) {
        self.add(line, &format!("{key} = {}", quoted(value)));
    }

    fn unit(&mut self, key: &str, (line, number): Line, unit: &str) {
        self.set(key, (line, &format!("{number}{unit}")));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Error, HookSpec, settings};
    use crate::journal::{EventName, NewEvent};

    fn read(text: &str, bucket: Option<&str>) -> super::super::Result<Vec<HookSpec>> {
        let dir = tempfile::tempdir().unwrap();
        for module in ["resize.wasm", "users.wasm", "dist.wasm"] {
            std::fs::write(dir.path().join(module), "(module)").unwrap();
        }
        let file = dir.path().join("serverless.yml");
        std::fs::write(&file, text).unwrap();
        match bucket {
            Some(bucket) => settings::load_for(&file, bucket),
            None => settings::load(&file),
        }
    }

    fn function(settings: &str) -> String {
        let lines: Vec<String> = settings.lines().map(|line| format!("    {line}\n")).collect();
        format!("functions:\n  resize:\n    handler: resize.handler\n{}", lines.concat())
    }

    fn fires(spec: &HookSpec, name: EventName, path: &str) -> bool {
        spec.wants(&NewEvent::now(name, ""), path)
    }

    /// As the Framework's own documents and templates write them.
    const OF_THE_FRAMEWORK: &str = "service: users\nframeworkVersion: '4'\n\nprovider:\n  name: aws\n  \
        runtime: nodejs20.x\n  iam:\n    role:\n      statements:\n        - Effect: Allow\n          \
        Resource: !Sub 'arn:aws:s3:::${Bucket}/*'\n\nfunctions:\n  resize:\n    handler: resize.handler\n    \
        events:\n      - s3: photos\n  users:\n    handler: users.handler\n    events:\n      - s3:\n          \
        bucket: photos\n          event: s3:ObjectCreated:*\n          rules:\n            - prefix: uploads/\n            \
        - suffix: .jpg\n          existing: true\n";

    #[test]
    fn the_example_of_the_framework_is_read() {
        let specs = read(OF_THE_FRAMEWORK, Some("photos")).unwrap();
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["resize", "users"]);
        assert!(
            fires(&specs[0], EventName::CreatedPut, "any/path") && !fires(&specs[0], EventName::RemovedDelete, "a")
        );
        assert!(fires(&specs[1], EventName::CreatedCopy, "uploads/x/a.jpg"));
        assert!(!fires(&specs[1], EventName::CreatedPut, "uploads/a.png"));
        assert_eq!((specs[1].memory_bytes, specs[1].timeout), (1 << 30, Duration::from_secs(6)));
        assert!(specs[1].wasm.ends_with("users.wasm"));
    }

    #[test]
    fn what_is_said_of_a_function_is_so() {
        let text = format!(
            "provider:\n  memorySize: 256\n  environment:\n    STAGE: dev\n    SIZE: 1\n{}",
            function(
                "package:\n  individually: true\n  artifact: dist.wasm\ntimeout: 900\nreservedConcurrency: 5\n\
                 maximumRetryAttempts: 1\nmaximumEventAge: 7200\nephemeralStorageSize: 1024\nenvironment:\n  \
                 SIZE: 256\n  'a \"b\"': \"two\\nlines\"\n"
            )
        );
        let spec = read(&text, None).unwrap().remove(0);
        assert!(spec.wasm.ends_with("dist.wasm"));
        assert_eq!((spec.memory_bytes, spec.timeout), (256 << 20, Duration::from_mins(15)));
        assert_eq!((spec.concurrency, spec.delivery.retries, spec.storage_bytes), (5, 1, 1 << 30));
        assert_eq!(spec.delivery.max_age, Some(Duration::from_hours(2)));
        let env = [("SIZE", "256"), ("STAGE", "dev"), ("a \"b\"", "two\nlines")];
        assert_eq!(spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(), env);
        assert!(!fires(&spec, EventName::CreatedPut, "a"), "no event fires it");
    }

    #[test]
    fn destinations_are_functions_and_queues() {
        let text = "functions:\n  resize:\n    handler: resize.handler\n    destinations:\n      onSuccess: users\n      \
            onFailure:\n        type: sqs\n        arn: arn:aws:sqs:eu-west-1:1:q\n  users:\n    handler: users.handler\n";
        let spec = read(text, None).unwrap().remove(0);
        assert_eq!(spec.on_success.unwrap().to_string(), "hook:users");
        assert_eq!(spec.on_failure.unwrap().to_string(), "sqs:https://sqs.eu-west-1.amazonaws.com/1/q");
        for (wrong, line) in [("none", 5), ("resize", 5), ("arn:aws:sns:eu-west-1:1:t", 5)] {
            let Error::Settings { line: found, .. } =
                read(&text.replace("onSuccess: users", &format!("onSuccess: {wrong}")), None).unwrap_err()
            else {
                panic!("no settings")
            };
            assert_eq!(found, line, "{wrong}");
        }
    }

    #[test]
    fn a_url_is_wanted_or_not() {
        let text = |url: &str| format!("functions:\n  users:\n    handler: users.handler\n    url: {url}\n");
        assert!(read(&text("true"), None).unwrap()[0].url);
        assert!(!read(&text("false"), None).unwrap()[0].url);
        for wrong in ["maybe", "{cors: true}", "{authorizer: aws_iam}"] {
            let Error::Settings { line, problem, .. } = read(&text(wrong), None).unwrap_err() else {
                panic!("{wrong}")
            };
            assert!(line == 4 && problem.contains("neither CORS nor an authorizer"), "{line}: {problem}");
        }
    }

    #[test]
    fn several_events_of_a_function_are_one_rule() {
        let s3 = |event: &str, prefix: &str, suffix: &str| {
            format!("  - s3: {{bucket: b, event: '{event}', rules: [{{prefix: '{prefix}'}}, {{suffix: {suffix}}}]}}\n")
        };
        let of = |events: &[String]| read(&function(&format!("events:\n{}", events.concat())), Some("b"));
        let created = "s3:ObjectCreated:Put";
        let spec = of(&[s3(created, "in/a[1]", ".jpg"), s3(created, "in/", ".png")]).unwrap().remove(0);
        for (path, wanted) in [
            ("in/a[1].jpg", true),
            ("in/a[1]/deep/x.jpg", true),
            ("in/a1.jpg", false),
            ("in/b.jpg", false),
            ("in/x.png", true),
            ("in/x/y.png", true),
            ("x.png", false),
        ] {
            assert_eq!(fires(&spec, EventName::CreatedPut, path), wanted, "{path}");
        }
        let both = of(&[s3(created, "a", "z"), s3("s3:ObjectRemoved:*", "a", "z")]).unwrap().remove(0);
        assert!(fires(&both, EventName::CreatedPut, "a/z") && fires(&both, EventName::RemovedDelete, "a/z"));
        let Error::Settings { line, problem, .. } =
            of(&[s3(created, "a", "z"), s3("s3:ObjectRemoved:*", "b", "z")]).unwrap_err()
        else {
            panic!("no settings")
        };
        assert!(line == 6 && problem.contains("a function of its own"), "{line} {problem}");
    }

    #[test]
    fn anything_else_is_an_error_that_names_its_line() {
        let line = |text: &str| match read(text, Some("photos")).expect_err(text) {
            Error::Settings { line, hook, problem, .. } => (line, format!("{hook}: {problem}")),
            other => panic!("{other}"),
        };
        for (text, expected, part) in [
            ("service: x\nplugins:\n  - y\n", 2, "`plugins` means nothing here"),
            ("service: x\nresources:\n  Resources: {}\n", 2, "`resources`"),
            ("provider:\n  name: google\n", 2, "aws"),
            ("provider:\n  name: aws\n  vpc: {}\n", 3, "`provider.vpc`"),
            ("functions:\n  a: x\n", 2, "no mapping"),
            ("functions: [\n", 2, ""),
            (&function("layers: []"), 4, "resize: `layers`"),
            (&function("events:\n  - http: GET /"), 5, "`events.http` means nothing here"),
            (&function("events:\n  - s3: other"), 5, "its bucket is other, and the mount's is photos"),
            (&function("events:\n  - s3: ${self:custom.bucket}"), 5, "${self:custom.bucket} are not resolved"),
            (&function("events:\n  - s3: !Ref Bucket"), 5, "plain text"),
            (&function("events:\n  - s3:\n      bucket: photos\n      event: s3:ObjectRestore:*"), 7, "never happens"),
            (&function("events:\n  - s3:\n      event: s3:ObjectCreated:*"), 5, "names no bucket"),
            (&function("memorySize: 10240"), 4, "memory of 10240M is outside"),
            (&function("memorySize: much"), 4, "\"much\" is no whole number"),
            (&function("timeout: 901"), 4, "a timeout of 901s is outside"),
            (&function("reservedConcurrency: 0"), 4, "a concurrency of 0"),
            (&function("maximumEventAge: 0"), 4, "a max-age of 0s"),
            (&function("environment:\n  AWS_LAMBDA_X: 1"), 5, "set by s3mount itself"),
            (&function("package:\n  artifact: a.zip"), 5, "a.zip is no .wasm"),
            ("functions:\n  a:\n    timeout: 3\n", 2, "neither handler"),
            ("functions:\n  'a b':\n    handler: resize.handler\n", 2, "a name has"),
        ] {
            let (found, problem) = line(text);
            assert!(found == expected && problem.contains(part), "{text}: {found}: {problem}");
        }
        let missing = read("functions:\n  a:\n    handler: none.handler\n", None).unwrap_err().to_string();
        assert!(missing.contains("none.wasm"), "{missing}");
    }
}
