// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/state_file.h"

#include "trireme/base/error.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme::ps {

std::string write_state_file(const std::string& path, const RangeStorage& storage) {
  detail::OutputFile file(path, detail::OutputFile::Existing::kRefuse);
  storage.export_state([&](Bytes part) { file.write(part); });
  return file.finish();
}

BufferPool::Buffer read_state_file(const std::string& path, const std::string& digest,
                                   BufferPool& buffers) {
  const detail::InputFile input = detail::open_input(path);
  BufferPool::Buffer state = buffers.get(input.size);
  detail::read_file(input, path, state.bytes());
  const std::string found = detail::digest_of(state.bytes());
  if (found != digest) {
    throw_error<CheckpointError>(
        "'{}' is damaged: its digest is {}, the snapshot's manifest says {}", path, found, digest);
  }
  return state;
}

}  // namespace trireme::ps
