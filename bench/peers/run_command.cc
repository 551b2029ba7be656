// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "bench/peers/run_command.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdio>

#include "trireme/base/error.h"

namespace trireme::peers {
namespace {

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

std::string shell_line(const Command& command) {
  std::string line = "env";
  for (const auto& [name, value] : command.environment) line += " " + quoted(name + "=" + value);
  line += fmt::format(" timeout {}", command.limit_seconds);
  for (const std::string& word : command.words) line += " " + quoted(word);
  return line;
}

}  // namespace

std::string output_of(const Command& command) {
  const std::string line = shell_line(command);
  std::FILE* pipe = ::popen(line.c_str(), "r");
  if (pipe == nullptr) throw_error<Error>("cannot start {}", line);
  std::string text;
  char chunk[4096];
  for (std::size_t n = 0; (n = std::fread(chunk, 1, sizeof chunk, pipe)) > 0;)
    text.append(chunk, n);
  const int status = ::pclose(pipe);
  if (status != 0) throw_error<Error>("status {} of: {}", status, line);
  return text;
}

}  // namespace trireme::peers
