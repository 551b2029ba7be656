// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0
#include "trireme/cli/commands.h"
namespace trireme::cli {
void add_bench_command(CLI::App&, Action&) {}
}
