//! blackbox_exporter, driven over HTTP: the driver runs on the server's CPU, only the exporter is measured.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use test_support::{SOON, eventually};

use super::Cpus;
use super::contestants::Arena;
use super::loads::{Load, TIMEOUT};
use super::process::{Process, on_cpu};
use super::score::Told;
use crate::repo::output;

const BINARY: &str = "prometheus-blackbox-exporter";
const ADDRESS: &str = "127.0.0.1:19015";

pub fn version() -> Result<String> {
    let text = output(Command::new(BINARY).arg("--version"))
        .with_context(|| format!("as root: apt-get install {BINARY} (or give --install)"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub struct Blackbox {
    exporter: Child,
    driver: Option<Process>,
    _folder: tempfile::TempDir,
}

impl Blackbox {
    pub fn start(arena: &Arena, driver: &Path, cpus: Cpus, load: &Load) -> Result<Blackbox> {
        let Cpus { cpu, server_cpu: driver_cpu } = cpus;
        let folder = tempfile::tempdir().context("a folder for blackbox_exporter")?;
        let path = folder.path().join("blackbox.yml");
        fs::write(&path, config(TIMEOUT)).context("the exporter's configuration")?;
        let mut command = on_cpu(cpu);
        command
            .arg(BINARY)
            .arg(format!("--config.file={}", path.display()))
            .args([&format!("--web.listen-address={ADDRESS}"), "--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let exporter =
            arena.net.inside(|| command.spawn()).with_context(|| format!("cannot start {BINARY}"))?;
        let mut blackbox = Blackbox { exporter, driver: None, _folder: folder };
        eventually("the exporter listens", SOON, || {
            arena.net.inside(|| TcpStream::connect(ADDRESS)).is_ok().then_some(())
        });
        let extra = ["--exporter".to_owned(), ADDRESS.to_owned()];
        blackbox.driver = Some(Process::start(arena, driver, &extra, driver_cpu, load)?);
        Ok(blackbox)
    }

    pub fn pid(&self) -> u32 {
        self.exporter.id()
    }

    pub fn measure(&mut self) -> Result<()> {
        self.driver.as_mut().context("the driver has ended")?.measure()
    }

    pub fn stop(mut self) -> Result<Told> {
        let told = self.driver.take().context("the driver has ended")?.stop()?;
        ensure!(self.exporter.try_wait().context("wait")?.is_none(), "{BINARY} has ended early");
        // Late and early are the driver's, not the exporter's: it has no schedule.
        Ok(Told { lateness_us: None, ..told })
    }
}

impl Drop for Blackbox {
    fn drop(&mut self) {
        let _ = self.exporter.kill();
        let _ = self.exporter.wait();
    }
}

fn config(timeout: Duration) -> String {
    format!(
        "modules:\n  http_200:\n    prober: http\n    timeout: {}ms\n    http:\n      valid_status_codes: [200]\n      \
         preferred_ip_protocol: ip4\n      ip_protocol_fallback: false\n      headers:\n        User-Agent: \
         kube-probe/1.34\n",
        timeout.as_millis()
    )
}
