//! Lambda's API on a live mount: `aws lambda invoke`, boto3, and plain HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};

use serde_json::Value;

use crate::stage::servers::venv;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process};

/// Answers with what it is called with, and leaves a copy of `/in/in/a.txt` if that is there.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "in/a.txt") (data (i32.const 80) "copy") (data (i32.const 96) "called\n")
  (func $pour (param $from i32) (param $to i32)
    (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 65536))
    (drop (call $fd_read (local.get $from) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $fd_write (local.get $to) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 96)) (i32.store (i32.const 4) (i32.const 7))
    (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $pour (i32.const 0) (i32.const 1))
    (if (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8) (i32.const 0)
      (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
      (then
        (drop (call $path_open (i32.const 5) (i32.const 0) (i32.const 80) (i32.const 4) (i32.const 1)
          (i64.const 0x400040) (i64.const 0) (i32.const 0) (i32.const 36)))
        (call $pour (i32.load (i32.const 32)) (i32.load (i32.const 36)))))))"#;
const FAILS: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 3))))"#;

/// Answers every request with a page.
const PAGE: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{\22statusCode\22: 201, \22headers\22: {\22Content-Type\22: \22text/html\22}, \22cookies\22: [\22a=1\22], \22body\22: \22<p>\22}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 96))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// A mount with the hooks `echo`, `fails` and `page`, which nothing fires, and the address of its API.
fn mount() -> (Mount, SocketAddr) {
    let mut mount = Stage::on(Maker::Embedded).args(&["--lambda-listen", "127.0.0.1:0"]).hooks("").prepare();
    let hook = |name: &str, module: &str| {
        fs::write(mount.beside(&format!("{name}.wat")), module).unwrap();
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\nevents = []\noutput = \"made\"\nretries = 0\n")
    };
    let with_url = |name, module| hook(name, module) + "url = true\n";
    let settings = with_url("echo", ECHO) + &hook("fails", FAILS) + &with_url("page", PAGE);
    fs::write(mount.beside("hooks.toml"), settings).unwrap();
    mount.start();
    let address = mount.status()["lambda"].as_str().expect("an address").parse().unwrap();
    (mount, address)
}

/// Sends a request as it stands; the status line with the headers, and the body.
fn send(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_ascii_lowercase(), body.to_owned())
}

fn invoke(address: SocketAddr, hook: &str, headers: &str, payload: &str) -> (String, String) {
    let length = payload.len();
    send(
        address,
        &format!(
            "POST /2015-03-31/functions/{hook}/invocations HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             {headers}Content-Length: {length}\r\n\r\n{payload}"
        ),
    )
}

fn event_of(mount: &Mount, key: &str) -> String {
    let bucket = mount.outside().bucket();
    format!(
        r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}"}}}}}}]}}"#
    )
}

fn wait(mount: &Mount) -> Output {
    let mut command = mount.command();
    process::output(command.args(["hooks", "wait", mount.path().to_str().unwrap()]), PATIENCE)
}

#[test]
fn a_hook_is_invoked_as_a_function_is() {
    let (mount, address) = mount();
    let (head, body) = invoke(address, "echo", "X-Amz-Log-Type: Tail\r\n", r#"{"a": 1}"#);
    assert!(head.starts_with("http/1.1 200") && head.contains("x-amz-executed-version: $latest"), "{head}");
    assert_eq!(body, r#"{"a": 1}"#, "its stdout, which is its stdin, byte for byte");
    assert!(head.contains("x-amz-log-result: ") && !head.contains("x-amz-function-error"), "{head}");
    assert!(mount.outside().keys("made/").is_empty());

    let (head, body) = invoke(address, "fails", "", "{}");
    assert!(head.starts_with("http/1.1 200") && head.contains("x-amz-function-error: unhandled"), "{head}");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["errorType"], "Runtime.ExitError");
    assert!(told["errorMessage"].as_str().unwrap().ends_with("Error: exit code 3"), "{told}");

    for (request, status, word) in [
        (invoke(address, "none", "", "{}"), 404, "ResourceNotFoundException"),
        (invoke(address, "echo", "", "{"), 400, "InvalidRequestContentException"),
        (invoke(address, "echo", "X-Amz-Invocation-Type: Maybe\r\n", ""), 400, "InvalidParameterValueException"),
        (invoke(address, "echo", "X-Amz-Invocation-Type: DryRun\r\n", ""), 204, ""),
        (invoke(address, "echo", "Origin: http://evil.example\r\n", "{}"), 403, "AccessDeniedException"),
        (
            send(address, &format!("GET /other HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")),
            404,
            "UnknownOp",
        ),
    ] {
        let (head, body) = request;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{status}: {head}\n{body}");
        assert!(head.contains(&word.to_ascii_lowercase()), "{head}");
    }
    let stats = &mount.status()["hooks"]["hooks"];
    assert_eq!((&stats[0]["invocations"], &stats[1]["invocations"]), (&1.into(), &1.into()));
}

#[test]
fn a_hook_with_a_url_answers_plain_http() {
    let (mount, address) = mount();
    let ask = |head: &str, body: &str| {
        let length = format!("Content-Length: {}\r\n", body.len());
        send(address, &format!("{head}Host: {address}\r\nConnection: close\r\n{length}\r\n{body}"))
    };
    let (head, body) = ask("PUT /function-url/page/any?a=b HTTP/1.1\r\n", "");
    assert!(head.starts_with("http/1.1 201") && body == "<p>", "{head}\n{body}");
    assert!(head.contains("content-type: text/html") && head.contains("set-cookie: a=1"), "{head}");

    let request = "POST /function-url/echo/some/path?a=1&a=2 HTTP/1.1\r\nContent-Type: text/plain\r\n";
    let (head, body) = ask(request, "hello");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"), "{head}");
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&event["version"], &event["rawPath"]), (&"2.0".into(), &"/some/path".into()));
    assert_eq!((&event["body"], &event["queryStringParameters"]["a"]), (&"hello".into(), &"1,2".into()));
    let http = &event["requestContext"]["http"];
    assert_eq!((&http["method"], &http["sourceIp"]), (&"POST".into(), &"127.0.0.1".into()));
    let id = event["requestContext"]["requestId"].as_str().unwrap();
    assert!(head.contains(&format!("x-amzn-requestid: {id}")), "{head}");

    for (request, status) in [
        // Without `url = true`, and without a hook.
        ("GET /function-url/fails/ HTTP/1.1\r\n", 404),
        ("GET /function-url/none HTTP/1.1\r\n", 404),
        ("GET /function-url/ HTTP/1.1\r\n", 404),
        ("GET /function-url/page/ HTTP/1.1\r\nOrigin: http://evil.example\r\n", 403),
    ] {
        let (head, body) = ask(request, "");
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{request}: {head}\n{body}");
    }
    let settings = fs::read_to_string(mount.beside("hooks.toml")).unwrap();
    fs::write(mount.beside("hooks.toml"), settings.replace("name = \"fails\"", "name = \"fails\"\nurl = true"))
        .unwrap();
    let mut deploy = mount.command();
    process::run(deploy.args(["hooks", "deploy"]).arg(mount.path()));
    let (head, body) = ask("GET /function-url/fails/ HTTP/1.1\r\n", "");
    assert!(head.starts_with("http/1.1 502") && body == "Internal Server Error", "{head}\n{body}");
}

#[test]
fn the_object_of_an_event_lies_under_in() {
    let (mount, address) = mount();
    fs::create_dir(mount.at("in")).unwrap();
    fs::write(mount.at("in/a.txt"), "of mine").unwrap();
    let (head, body) = invoke(address, "echo", "", &event_of(&mount, "in%2Fa.txt"));
    assert!(head.starts_with("http/1.1 200"), "{head}\n{body}");
    assert_eq!(fs::read_to_string(mount.at("made/copy")).unwrap(), "of mine");
    fs::remove_file(mount.at("made/copy")).unwrap();
    // Another bucket's event, and one of an object that is not there: /in is empty.
    let others = event_of(&mount, "in/a.txt").replace(mount.outside().bucket(), "other");
    for payload in [others, event_of(&mount, "in/none.txt")] {
        assert!(invoke(address, "echo", "", &payload).0.starts_with("http/1.1 200"));
    }
    assert!(!mount.at("made/copy").exists());
}

#[test]
fn an_event_is_queued_and_outlives_the_mount() {
    let (mut mount, address) = mount();
    let later = "X-Amz-Invocation-Type: Event\r\n";
    fs::create_dir(mount.at("in")).unwrap();
    fs::write(mount.at("in/a.txt"), "of mine").unwrap();
    let (head, body) = invoke(address, "echo", later, &event_of(&mount, "in/a.txt"));
    assert!(head.starts_with("http/1.1 202") && body.is_empty(), "{head}\n{body}");
    assert!(wait(&mount).status.success());
    assert_eq!(mount.outside().bytes("made/copy"), b"of mine");

    assert!(invoke(address, "fails", later, r#"{"lost": "never"}"#).0.starts_with("http/1.1 202"));
    assert_eq!(wait(&mount).status.code(), Some(70));
    mount.remount();
    let mut command = mount.command();
    let listed = process::run(command.current_dir(mount.path()).args(["hooks", "dead-letters", "list", "--json"]));
    let dead: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&dead[0]["hook"], &dead[0]["event"]), (&"fails".into(), &"Invoke".into()));
    assert_eq!(dead[0]["payload"], r#"{"lost": "never"}"#);
}

#[test]
fn the_aws_command_and_boto3_know_the_api() {
    let (mount, address) = mount();
    let endpoint = format!("http://{address}");
    let script = format!(
        r#"
import base64, boto3, json
from botocore.config import Config
client = boto3.client("lambda", endpoint_url="{endpoint}", region_name="us-east-1", aws_access_key_id="x",
                      aws_secret_access_key="y", config=Config(retries={{"max_attempts": 0}}))
names = [function["FunctionName"] for function in client.list_functions()["Functions"]]
assert names == ["echo", "fails", "page"], names
url = client.get_function_url_config(FunctionName="echo")["FunctionUrl"]
assert url == "{endpoint}/function-url/echo/", url
try:
    client.get_function_url_config(FunctionName="fails")
    assert False
except client.exceptions.ResourceNotFoundException as error:
    assert "url = true" in str(error)
found = client.get_function(FunctionName="echo")["Configuration"]
assert (found["MemorySize"], found["Timeout"], found["State"]) == (128, 30, "Active"), found
assert client.get_function_configuration(FunctionName=found["FunctionArn"])["Handler"] == "echo.wat"
answer = client.invoke(FunctionName="echo", Payload=b'{{"a": 1}}', LogType="Tail")
assert json.load(answer["Payload"]) == {{"a": 1}} and answer["StatusCode"] == 200, answer
tail = base64.b64decode(answer["LogResult"]).decode()
assert "called\n" in tail and "REPORT RequestId: " + answer["ResponseMetadata"]["RequestId"] in tail, tail
assert client.invoke(FunctionName="fails")["FunctionError"] == "Unhandled"
assert client.invoke(FunctionName="echo", InvocationType="Event")["StatusCode"] == 202
assert client.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
try:
    client.invoke(FunctionName="none")
    assert False
except client.exceptions.ResourceNotFoundException as error:
    assert "none" in str(error)
"#
    );
    process::run(Command::new(venv("python")).args(["-c", &script]));
    // Where the command of AWS is installed: the words of its documentation.
    if Command::new("aws").arg("--version").output().is_ok_and(|output| output.status.success()) {
        let out = mount.beside("answer.json");
        let mut command = Command::new("aws");
        command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "y");
        command.args([
            "lambda",
            "invoke",
            "--endpoint-url",
            &endpoint,
            "--region",
            "us-east-1",
            "--function-name",
            "echo",
        ]);
        let payload = mount.beside("payload.json");
        fs::write(&payload, r#"{"b":2}"#).unwrap();
        command.args(["--payload", &format!("fileb://{}", payload.display()), "--log-type", "Tail"]);
        let told: Value = serde_json::from_str(&process::run(command.arg(&out))).unwrap();
        assert_eq!((&told["StatusCode"], &told["ExecutedVersion"]), (&200.into(), &"$LATEST".into()));
        assert!(told["LogResult"].is_string());
        assert_eq!(fs::read_to_string(out).unwrap(), r#"{"b":2}"#);
    }
}
