// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/checkpoint/atomic_file.h"
#include "trireme/checkpoint/checkpoint_folder.h"
#include "trireme/checkpoint/checkpoint_manifest.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme {
namespace {

// Compares a file with what the manifest says of it.
void verify_file(const std::string& checkpoint, const CheckpointFile& file) {
  const std::string path = (std::filesystem::path(checkpoint) / file.name).string();
  if (!detail::path_exists(path)) {
    throw_error<CheckpointError>("checkpoint '{}' lacks its file '{}'", checkpoint, file.name);
  }
  const detail::InputFile input = detail::open_input(path);
  if (input.size != file.size_bytes) {
    throw_error<CheckpointError>("checkpoint '{}': file '{}' has {} bytes instead of {}",
                                 checkpoint, file.name, input.size, file.size_bytes);
  }
  const std::string digest = detail::digest_of_file(input, path);
  if (digest != file.digest) {
    throw_error<CheckpointError>(
        "checkpoint '{}': file '{}' is damaged, its xxh3 is {} instead of {}; use an older "
        "checkpoint",
        checkpoint, file.name, digest, file.digest);
  }
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::string folder, std::int64_t step)
    : folder_(std::move(folder)),
      step_(step),
      temporary_(detail::step_path(folder_, step, detail::kTemporarySuffix)) {
  TRIREME_CHECK_LE(0, step, "checkpoint in {}", folder_);
  detail::make_folders(folder_);
  lock_ = std::make_unique<detail::FolderLock>(folder_);
  detail::recover_folder(folder_);
  detail::make_folders(temporary_);
}

CheckpointWriter::~CheckpointWriter() {
  if (!committed_) {
    // What cannot be removed now is removed by the next writer.
    std::error_code ignored;
    std::filesystem::remove_all(temporary_, ignored);
  }
}

std::string CheckpointWriter::new_file(const std::string& file) const {
  TRIREME_ASSERT(!committed_, "{} is added to a committed checkpoint", file);
  const bool taken = std::any_of(files_.begin(), files_.end(),
                                 [&](const CheckpointFile& other) { return other.name == file; });
  if (taken || !detail::is_plain_file_name(file)) {
    throw_error<ConfigError>("'{}' cannot be a file of checkpoint {}: {}", detail::printable(file),
                             step_, taken ? "it has one of that name" : "not a plain file name");
  }
  return temporary_ + "/" + file;
}

void CheckpointWriter::add_tensors(const std::string& file,
                                   const std::vector<std::pair<std::string, TensorView>>& tensors) {
  const std::string path = new_file(file);
  SafetensorsWriter writer(path);
  for (const auto& [name, tensor] : tensors) {
    writer.add(name, tensor.dtype, tensor.shape, tensor.bytes);
  }
  const std::string digest = writer.write({{"format", "pt"}});
  files_.push_back({file, detail::open_input(path).size, digest});
}

void CheckpointWriter::add_file(const std::string& file, std::string_view content) {
  detail::OutputFile output(new_file(file), detail::OutputFile::Existing::kRefuse);
  output.write(detail::as_bytes(content));
  const std::string digest = output.finish();
  files_.push_back({file, output.size(), digest});
}

void CheckpointWriter::adopt_file(const std::string& file, const std::string& digest) {
  files_.push_back({file, detail::open_input(new_file(file)).size, digest});
}

std::string CheckpointWriter::commit(const CheckpointState& state) {
  TRIREME_ASSERT(!committed_, "checkpoint {} is committed twice", step_);
  {
    const std::string manifest = detail::render_manifest({step_, state, files_});
    detail::OutputFile output(temporary_ + "/" + std::string(detail::kManifestName),
                              detail::OutputFile::Existing::kRefuse);
    output.write(detail::as_bytes(manifest));
    output.finish();
  }
  sync_folder(temporary_);

  const std::string path = detail::step_path(folder_, step_);
  const std::string aside = detail::step_path(folder_, step_, detail::kAsideSuffix);
  const bool replaces = detail::path_exists(path);
  if (replaces) {
    detail::rename_path(path, aside);
  }
  try {
    detail::rename_path(temporary_, path);
  } catch (const CheckpointError&) {
    if (replaces) {
      detail::rename_path(aside, path);
    }
    throw;
  }
  committed_ = true;
  sync_folder(folder_);
  if (replaces) {
    detail::remove_step(folder_, step_, detail::kAsideSuffix);
  }
  lock_.reset();
  return path;
}

Checkpoint Checkpoint::open(const std::string& path) {
  const std::string manifest_path =
      (std::filesystem::path(path) / std::string(detail::kManifestName)).string();
  if (!detail::path_exists(path)) {
    throw_error<CheckpointError>("there is no checkpoint at '{}': no such folder", path);
  }
  if (!detail::path_exists(manifest_path)) {
    throw_error<CheckpointError>("'{}' is not a checkpoint: it has no {}", path,
                                 detail::kManifestName);
  }
  detail::Manifest manifest = detail::parse_manifest(
      detail::read_file(manifest_path, detail::kMaxManifestBytes), manifest_path);
  for (const CheckpointFile& file : manifest.files) {
    verify_file(path, file);
  }
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  checkpoint.step_ = manifest.step;
  checkpoint.state_ = std::move(manifest.state);
  checkpoint.files_ = std::move(manifest.files);
  return checkpoint;
}

const std::string& Checkpoint::state_at(const std::string& key) const {
  const auto found = state_.find(key);
  if (found == state_.end()) {
    throw_error<CheckpointError>("checkpoint '{}' has no '{}' in its state", path_, key);
  }
  return found->second;
}

const CheckpointFile& Checkpoint::record_of(const std::string& file) const {
  const auto found = std::find_if(files_.begin(), files_.end(),
                                  [&](const CheckpointFile& other) { return other.name == file; });
  if (found == files_.end()) {
    throw_error<CheckpointError>("checkpoint '{}' has no file '{}'", path_,
                                 detail::printable(file));
  }
  return *found;
}

SafetensorsFile Checkpoint::tensors(const std::string& file) const {
  return SafetensorsFile((std::filesystem::path(path_) / record_of(file).name).string());
}

std::string Checkpoint::file(const std::string& file) const {
  const CheckpointFile& record = record_of(file);
  return detail::read_file((std::filesystem::path(path_) / record.name).string(),
                           record.size_bytes);
}

}  // namespace trireme
