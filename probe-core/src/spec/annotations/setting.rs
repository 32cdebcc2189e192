//! What annotations can say of a probe, and of which probes it can be said.

use k8s_openapi::api::core::v1::Probe;

/// One thing that an annotation `<probe>.<setting>` says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    PeriodMs,
    TimeoutMs,
    UnixSocket,
    KeepAlive,
    TlsVerify,
    TlsCa,
    TlsServerName,
    TcpClose,
    Redirects,
    BrokenBody,
    ResetOnRestart,
    ErroredRuns,
}

impl Setting {
    pub const ALL: [Setting; 12] = [
        Setting::PeriodMs,
        Setting::TimeoutMs,
        Setting::UnixSocket,
        Setting::KeepAlive,
        Setting::TlsVerify,
        Setting::TlsCa,
        Setting::TlsServerName,
        Setting::TcpClose,
        Setting::Redirects,
        Setting::BrokenBody,
        Setting::ResetOnRestart,
        Setting::ErroredRuns,
    ];

    /// As it stands in the key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Setting::PeriodMs => "period-ms",
            Setting::TimeoutMs => "timeout-ms",
            Setting::UnixSocket => "unix-socket",
            Setting::KeepAlive => "keep-alive",
            Setting::TlsVerify => "tls-verify",
            Setting::TlsCa => "tls-ca",
            Setting::TlsServerName => "tls-server-name",
            Setting::TcpClose => "tcp-close",
            Setting::Redirects => "redirects",
            Setting::BrokenBody => "broken-body",
            Setting::ResetOnRestart => "reset-on-restart",
            Setting::ErroredRuns => "errored-runs",
        }
    }

    pub fn parse(text: &str) -> Option<Setting> {
        Setting::ALL.into_iter().find(|setting| setting.as_str() == text)
    }

    /// Why it means nothing for this probe; None: it does mean something.
    pub fn unfit(self, probe: &Probe) -> Option<&'static str> {
        let is_http = probe.http_get.is_some();
        let is_tcp = probe.tcp_socket.is_some();
        let is_https = probe.http_get.as_ref().is_some_and(|http| http.scheme.as_deref() == Some("HTTPS"));
        let (fits, needs) = match self {
            Setting::PeriodMs | Setting::TimeoutMs | Setting::ResetOnRestart => (true, ""),
            Setting::UnixSocket => (is_http || is_tcp, "it has an effect on httpGet and tcpSocket only"),
            Setting::KeepAlive | Setting::Redirects | Setting::BrokenBody => {
                (is_http, "it has an effect on httpGet only")
            }
            Setting::TlsVerify | Setting::TlsCa | Setting::TlsServerName => {
                (is_https, "it has an effect on httpGet with scheme HTTPS only")
            }
            Setting::TcpClose => (is_tcp, "it has an effect on tcpSocket only"),
            Setting::ErroredRuns => (probe.exec.is_some(), "it has an effect on exec only"),
        };
        (!fits).then_some(needs)
    }
}
