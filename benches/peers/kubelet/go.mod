module defib.dev/benches/peers/kubelet

go 1.22
