// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Runs a program that measures itself and reads what it says.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace trireme::peers {

struct Command {
  std::vector<std::string> words;
  std::vector<std::pair<std::string, std::string>> environment = {};  // beside our own
  int limit_seconds = 120;
};

// What the command wrote to stdout. Throws Error with the command when it fails, or does not end in
// time.
std::string output_of(const Command& command);

}  // namespace trireme::peers
