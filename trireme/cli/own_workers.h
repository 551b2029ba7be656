// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Commands that several workers run together, by --workers or under a launcher.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace trireme::cli {

// Where nothing has launched this process and there are to be several workers: starts them with the
// same command line and returns their exit status. Else nothing: this process is a rank.
std::optional<int> run_own_workers(int workers, std::vector<std::string> command_line);

// This rank's share of the host's cores, or as many threads as given (0: not).
void use_rank_threads(int threads);

}  // namespace trireme::cli
