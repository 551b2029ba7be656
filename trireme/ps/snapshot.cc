// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/ps/range_storage.h"
#include "trireme/ps/state_file.h"

namespace trireme::ps {
namespace {

constexpr char kLayoutKey[] = "parameter_server_layout";

std::string file_name(std::size_t range) { return fmt::format("range-{:05}.state", range); }

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char byte : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return hex;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// What servers have left that were lost while they wrote.
void remove_unfinished(const std::vector<std::string>& paths) {
  std::error_code gone;
  const std::filesystem::path folder = std::filesystem::path(paths.front()).parent_path();
  for (const auto& entry : std::filesystem::directory_iterator(folder, gone)) {
    if (entry.path().string().ends_with(kUnfinishedSuffix)) {
      std::filesystem::remove(entry.path(), gone);
    }
  }
}

// What decides the ranges and what lies in them; when updates are applied does not.
JobLayout content_of(JobLayout layout) {
  layout.consistency = Consistency::sync();
  layout.two_phases = false;
  layout.backups = true;
  layout.first_step = 0;
  layout.settings.clear();
  return layout;
}

std::vector<Worker::RangeFile> files_of(const Checkpoint& checkpoint, const std::string& path,
                                        std::size_t ranges) {
  std::vector<Worker::RangeFile> files;
  for (std::size_t i = 0; i < ranges; ++i) {
    const std::string name = file_name(i);
    const auto found = std::find_if(checkpoint.files().begin(), checkpoint.files().end(),
                                    [&](const CheckpointFile& file) { return file.name == name; });
    if (found == checkpoint.files().end()) {
      throw_error<CheckpointError>("'{}' lacks the file {}", path, name);
    }
    files.push_back({path + "/" + name, found->digest});
  }
  return files;
}

// Of all ranges of a job with another number of slices.
std::vector<std::vector<std::byte>> states_of(const std::vector<Worker::RangeFile>& files,
                                              const JobLayout& layout) {
  std::vector<std::vector<std::byte>> states, slices;
  for (const Worker::RangeFile& file : files) {
    auto& to = states.size() < layout.dense_ranges().size() ? states : slices;
    std::vector<std::byte>& state = to.emplace_back();
    read_state_file(file.path, file.digest, [&](std::size_t bytes) {
      state.resize(bytes);
      return std::span(state);
    });
  }
  try {
    for (auto& slice : deal_slices(layout.sparse, slices)) states.push_back(std::move(slice));
  } catch (const ProtocolError& error) {
    throw_error<CheckpointError>("'{}' holds no rows of these tables: {}", files.back().path,
                                 error.what());
  }
  return states;
}

}  // namespace

std::string save_snapshot(Worker& worker, const std::string& folder, std::int64_t step) {
  CheckpointWriter writer(folder, step);
  std::vector<std::string> paths;
  for (std::size_t i = 0; i < worker.layout().num_ranges(); ++i) {
    paths.push_back(writer.path_for(file_name(i)));
  }
  const std::vector<std::string> digests = worker.save_ranges(paths);
  remove_unfinished(paths);
  for (std::size_t i = 0; i < digests.size(); ++i) writer.adopt_file(file_name(i), digests[i]);
  return writer.commit({{kLayoutKey, to_hex(worker.layout().encode())}});
}

std::int64_t load_snapshot(Worker& worker, const std::string& path) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  JobLayout ours = content_of(worker.layout());
  JobLayout saved;
  try {
    saved = content_of(JobLayout::decode(from_hex(checkpoint.state_at(kLayoutKey))));
  } catch (const ProtocolError& error) {
    throw_error<CheckpointError>("'{}' is no snapshot of parameter servers: {}", path,
                                 error.what());
  }
  const bool same_slices = ours.num_slices() == saved.num_slices();
  ours.sparse.slices = saved.sparse.slices;
  const std::string difference = layout_difference(ours, saved);
  if (!difference.empty()) {
    throw_error<CheckpointError>(
        "'{}' is a snapshot of another job (this job's, the snapshot's): {}", path, difference);
  }
  const std::vector<Worker::RangeFile> files = files_of(checkpoint, path, saved.num_ranges());
  worker.wait(same_slices ? worker.init(files)
                          : worker.init_states(states_of(files, worker.layout())));
  return checkpoint.step();
}

}  // namespace trireme::ps
