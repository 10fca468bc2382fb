//! Records of how events ended, in a queue of another's server.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::stage::servers::venv;
use crate::stage::{Maker, PATIENCE, Stage, process};

/// Ends well and says nothing.
const GUEST: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";

#[test]
fn a_queue_is_sent_the_record() {
    let mut mount = Stage::on(Maker::Ministack).hooks("").prepare();
    let endpoint = mount.endpoint().clone();
    let sqs = |code: &str| {
        let script = format!(
            "import boto3, json, sys\nsqs = boto3.client('sqs', endpoint_url='{}', region_name='us-east-1', \
             aws_access_key_id='{}', aws_secret_access_key='{}')\n{code}",
            endpoint.url, endpoint.access_key, endpoint.secret
        );
        process::run(Command::new(venv("python")).args(["-c", &script])).trim().to_owned()
    };
    let name = mount.outside().bucket().to_owned();
    let made = sqs(&format!("print(sqs.create_queue(QueueName='{name}')['QueueUrl'])"));
    let (_, path) = made.split_once("://").unwrap().1.split_once('/').unwrap();
    let queue = format!("{}/{path}", endpoint.url);
    fs::write(mount.beside("guest.wat"), GUEST).unwrap();
    let rule = "match = [\"in/*\"]";
    let hook = format!(
        "[[hook]]\nname = \"h\"\nwasm = \"guest.wat\"\n{rule}\noutput = \"made\"\non-success = \"sqs:{queue}\"\n"
    );
    fs::write(mount.beside("hooks.toml"), hook).unwrap();
    mount.start();
    fs::create_dir(mount.at("in")).unwrap();
    fs::write(mount.at("in/a"), "bytes").unwrap();
    let mut command = mount.command();
    let waited = process::output(command.args(["hooks", "wait", mount.path().to_str().unwrap()]), PATIENCE);
    assert!(waited.status.success(), "{waited:?}\n{}", mount.log());
    let body =
        sqs(&format!("print(sqs.receive_message(QueueUrl='{made}', WaitTimeSeconds=10)['Messages'][0]['Body'])"));
    let record: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(record["requestContext"]["condition"], "Success");
    assert_eq!(record["requestPayload"]["Records"][0]["s3"]["object"]["key"], "in/a");
}
