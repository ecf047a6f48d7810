//! Compiles the wire's messages, without needing `protoc` on the machine.

#[cfg(not(feature = "wire"))]
fn main() {}

#[cfg(feature = "wire")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(
        [
            "stigmer/sandbox/v1/sandbox.proto",
            "stigmer/host/v1/host.proto",
            "stigmer/agent/v1/agent.proto",
        ],
        [root],
    )?;
    // `Bytes` lets a chunk travel from the socket to its file without a copy.
    prost_build::Config::new()
        .bytes(["."])
        .include_file("wire.rs")
        .compile_fds(files)?;
    Ok(())
}
