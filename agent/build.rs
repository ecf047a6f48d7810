//! Generates the gRPC clients over the messages that the SDK holds.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../proto";
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(
        ["stigmer/host/v1/host.proto", "stigmer/agent/v1/agent.proto"],
        [root],
    )?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".stigmer", "::stigmer_sdk::wire::stigmer")
        .compile_fds(files)?;
    Ok(())
}
