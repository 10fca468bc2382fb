//! Build script of every hook. rustup's WASI target brings its own start code; Debian's wasi-libc
//! has it in a file that must be named to the linker, which only `scripts/build-hooks` asks for.

fn main() {
    println!("cargo:rerun-if-env-changed=S3MOUNT_HOOKS_WASI_LIBC");
    if let Ok(directory) = std::env::var("S3MOUNT_HOOKS_WASI_LIBC") {
        println!("cargo:rustc-link-arg-bins={directory}/crt1-command.o");
    }
}
