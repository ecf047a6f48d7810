//! Generates the gRPC services over the messages that the SDK holds.

#[expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../proto";
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(
        [
            "stigmer/sandbox/v1/sandbox.proto",
            "stigmer/host/v1/host.proto",
            "stigmer/agent/v1/agent.proto",
        ],
        [root],
    )?;
    let descriptors =
        std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?)
            .join("stigmer.bin");
    std::fs::write(descriptors, prost::Message::encode_to_vec(&files))?;
    tonic_prost_build::configure()
        .extern_path(".stigmer", "::stigmer_sdk::wire::stigmer")
        .compile_fds(files)?;
    Ok(())
}
