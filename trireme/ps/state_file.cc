// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/state_file.h"

#include "trireme/base/error.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme::ps {

std::string write_state_file(const std::string& path, std::span<const std::byte> state) {
  detail::OutputFile file(path, detail::OutputFile::Existing::kRefuse);
  file.write(state);
  return file.finish();
}

std::vector<std::byte> read_state_file(const std::string& path, const std::string& digest) {
  const std::string content = detail::read_file(path, detail::open_input(path).size);
  const std::span<const std::byte> bytes = detail::as_bytes(content);
  const std::string found = detail::digest_of(bytes);
  if (found != digest) {
    throw_error<CheckpointError>(
        "'{}' is damaged: its digest is {}, the snapshot's manifest says {}", path, found, digest);
  }
  return {bytes.begin(), bytes.end()};
}

}  // namespace trireme::ps
