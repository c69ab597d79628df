workload() { die "not yet"; }
