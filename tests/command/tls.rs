//! A server is believed when a certificate authority of this machine vouches for it, not otherwise.

use super::*;

/// A server of its own that ends with this value. It answers everything with a page.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_talked_to() {
    let dir = tempfile::tempdir().unwrap();
    let made = openssl(
        dir.path(),
        &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2"],
    )
    .args([
        "-subj",
        "/CN=s3",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ])
    .status();
    assert!(made.expect("openssl, on which ca-certificates depends").success());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let accept = ["s_server", "-accept", &address.to_string(), "-cert", "cert.pem", "-key", "key.pem", "-www"];
    let _server = Server(openssl(dir.path(), &accept).spawn().unwrap());
    let until = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "the server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::create_dir(dir.path().join("mnt")).unwrap();
    let mount = || {
        let mut command = s3mount();
        command.arg("bucket").arg(dir.path().join("mnt")).env("S3MOUNT_ENDPOINT_URL", format!("https://{address}"));
        for place in ["state", "cache"] {
            command.env(format!("S3MOUNT_{}_DIR", place.to_uppercase()), dir.path().join(place));
        }
        command
    };
    assert_refused(&mut mount(), 68, &["certificate"]);
    // With its certificate among those that are believed it is heard, and turns out to be no S3.
    let heard = run(mount().env("SSL_CERT_FILE", dir.path().join("cert.pem")));
    let said = text(&heard.stderr);
    assert!(!heard.status.success() && !said.contains("certificate"), "{said}");
}
