// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/worker_output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"

namespace trireme::detail {
namespace {

// Of a line, and of what waits for an output before its sources are left waiting too: what a pipe
// of Linux holds.
constexpr std::size_t kMostHeld = 64 << 10;  // bytes

}  // namespace

FileDescriptor LinePrinter::add(std::string prefix, int to) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    throw_error<Error>("no pipe for what a worker prints: {}", strerror(errno));
  }
  // The worker's end blocks, ours does not.
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  sources_.push_back({std::move(prefix), FileDescriptor(ends[0]), &output_of(to), ""});
  return FileDescriptor(ends[1]);
}

LinePrinter::Output& LinePrinter::output_of(int fd) {
  const auto found = std::ranges::find(outputs_, fd, &Output::fd);
  if (found != outputs_.end()) return *found;
  return outputs_.emplace_back(Output{fd, ""});
}

bool LinePrinter::takes_more(const Output& output) { return output.pending.size() < kMostHeld; }

void LinePrinter::append_waits(std::vector<pollfd>& waits) const {
  for (const Output& output : outputs_) {
    if (!output.pending.empty()) waits.push_back({output.fd, POLLOUT, 0});
  }
  for (const Source& source : sources_) {
    if (source.pipe && takes_more(*source.output)) waits.push_back({source.pipe.get(), POLLIN, 0});
  }
}

void LinePrinter::move() {
  for (Source& source : sources_) {
    if (source.pipe && takes_more(*source.output)) read_from(source);
  }
  for (Output& output : outputs_) write_to(output);
}

void LinePrinter::end() {
  for (Source& source : sources_) {
    // At most what the pipe holds now: a process that escaped may go on writing.
    for (std::size_t read = 0; source.pipe && read < kMostHeld; read += PIPE_BUF) read_from(source);
    source.pipe = {};
    finish_line(source);
  }
  for (Output& output : outputs_) write_to(output);
}

bool LinePrinter::pending() const {
  return std::ranges::any_of(outputs_, [](const Output& o) { return !o.pending.empty(); });
}

// Closes the pipe at its end.
void LinePrinter::read_from(Source& source) {
  char bytes[PIPE_BUF];
  const ssize_t got = read(source.pipe.get(), bytes, sizeof bytes);
  if (got > 0) take(source, {bytes, static_cast<std::size_t>(got)});
  if (got == 0) {
    source.pipe = {};
    finish_line(source);
  }
}

void LinePrinter::take(Source& source, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    source.line += bytes.substr(0, end);
    if (end != std::string_view::npos || source.line.size() >= kMostHeld) {
      source.output->pending += source.prefix + std::exchange(source.line, "") + "\n";
    }
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
  }
}

void LinePrinter::finish_line(Source& source) {
  if (!source.line.empty()) take(source, "\n");
}

// A pipe that is ready takes PIPE_BUF bytes without blocking. Whole lines, where they fit: others
// write to the same terminal.
void LinePrinter::write_to(Output& output) {
  for (pollfd ready{output.fd, POLLOUT, 0}; !output.pending.empty() && poll(&ready, 1, 0) == 1;) {
    const std::string_view next = std::string_view(output.pending).substr(0, PIPE_BUF);
    const std::size_t line_end = next.rfind('\n');
    const std::size_t size = line_end == std::string_view::npos ? next.size() : line_end + 1;
    const ssize_t written = write(output.fd, next.data(), size);
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) return;
    // Nobody reads it any more: dropped, as a worker's own output would be.
    output.pending.erase(0, written < 0 ? std::string::npos : static_cast<std::size_t>(written));
  }
}

}  // namespace trireme::detail
