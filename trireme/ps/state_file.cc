// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/state_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "trireme/base/error.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme::ps {
namespace {

// Of this process and no other that may write beside it, on other hosts too.
std::string unfinished_name(const std::string& path) {
  static std::atomic<int> count{0};
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  return fmt::format("{}.{}.{}.{}{}", path, host, ::getpid(), count++, kUnfinishedSuffix);
}

}  // namespace

std::string write_state_file(const std::string& path, const StateParts& state) {
  const std::string unfinished = unfinished_name(path);
  detail::OutputFile file(unfinished, detail::OutputFile::Existing::kRefuse);
  state([&](Bytes part) { file.write(part); });
  std::string digest = file.finish();
  const int error = ::link(unfinished.c_str(), path.c_str()) == 0 ? 0 : errno;
  ::unlink(unfinished.c_str());
  if (error == EEXIST) return detail::digest_of_file(detail::open_input(path), path);
  if (error != 0) {
    throw_error<CheckpointError>("'{}' cannot be made: {}", path, std::strerror(error));
  }
  return digest;
}

void read_state_file(const std::string& path, const std::string& digest,
                     const std::function<std::span<std::byte>(std::size_t)>& make) {
  const detail::InputFile input = detail::open_input(path);
  const std::span<std::byte> state = make(input.size);
  detail::read_file(input, path, state);
  const std::string found = detail::digest_of(state);
  if (found != digest) {
    throw_error<CheckpointError>(
        "'{}' is damaged: its digest is {}, the snapshot's manifest says {}", path, found, digest);
  }
}

}  // namespace trireme::ps
