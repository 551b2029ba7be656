// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/checkpoint/atomic_file.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/checkpoint/checkpoint_manifest.h"

namespace trireme {
namespace detail {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";

// The step of a name such as step-00000400, in exactly the form that step_path() gives.
std::optional<std::int64_t> parse_step(const std::string& name) {
  std::int64_t step = -1;
  if (name.size() <= kStepPrefix.size()) {
    return std::nullopt;
  }
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kStepPrefix.size(), end, step);
  if (parsed.ec != std::errc() || parsed.ptr != end || step < 0 ||
      step_path(".", step) != "./" + name) {
    return std::nullopt;
  }
  return step;
}

// The steps present in a folder, by suffix.
std::map<std::string, std::set<std::int64_t>> scan(const std::string& folder) {
  std::map<std::string, std::set<std::int64_t>> found;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  if (error == std::errc::no_such_file_or_directory) {
    return found;
  }
  while (!error && entry != fs::directory_iterator()) {
    const fs::path name = entry->path().filename();
    std::error_code unknown;
    const std::optional<std::int64_t> step = parse_step(name.stem().string());
    if (step && entry->is_directory(unknown)) {
      found[name.extension().string()].insert(*step);
    }
    entry.increment(error);
  }
  if (error) {
    throw_system_error("read folder", folder, error.value());
  }
  return found;
}

}  // namespace

std::string step_path(const std::string& folder, std::int64_t step, std::string_view suffix) {
  return fmt::format("{}/{}{:08d}{}", folder, kStepPrefix, step, suffix);
}

FolderLock::FolderLock(const std::string& folder)
    : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (!folder_) {
    throw_system_error("open folder", folder, errno);
  }
  // Network file systems without locks on folders answer with other errors. There the lock is
  // missing, not the checkpoint: it guards against two writers, which is a mistake in the first
  // place.
  if (::flock(folder_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw_error<CheckpointError>(
        "'{}' is in use: another process, or another writer in this one, is writing a checkpoint "
        "there; give each run a folder of its own",
        folder);
  }
}

void remove_step(const std::string& folder, std::int64_t step, std::string_view suffix) {
  const std::string removed = step_path(folder, step, kRemovedSuffix);
  rename_path(step_path(folder, step, suffix), removed);
  sync_folder(folder);
  remove_path(removed);
}

void recover_folder(const std::string& folder) {
  auto found = scan(folder);
  for (const std::string_view suffix : {kTemporarySuffix, kRemovedSuffix}) {
    for (const std::int64_t step : found[std::string(suffix)]) {
      remove_path(step_path(folder, step, suffix));
    }
  }
  for (const std::int64_t step : found[std::string(kAsideSuffix)]) {
    if (found[""].contains(step)) {
      remove_step(folder, step, kAsideSuffix);
    } else {
      rename_path(step_path(folder, step, kAsideSuffix), step_path(folder, step));
      sync_folder(folder);
    }
  }
}

}  // namespace detail

std::vector<std::string> list_checkpoints(const std::string& folder) {
  auto found = detail::scan(folder);
  std::map<std::int64_t, std::string> paths;
  // A checkpoint of both names is listed under the first: emplace() keeps what is there.
  for (const std::string_view suffix : {std::string_view(), detail::kAsideSuffix}) {
    for (const std::int64_t step : found[std::string(suffix)]) {
      paths.emplace(step, detail::step_path(folder, step, suffix));
    }
  }
  std::vector<std::string> sorted;
  for (auto& [step, path] : paths) {
    sorted.push_back(std::move(path));
  }
  return sorted;
}

void prune_checkpoints(const std::string& folder, std::int64_t keep) {
  if (keep < 1) {
    throw_error<ConfigError>("cannot keep {} checkpoints in '{}': at least 1 must stay", keep,
                             folder);
  }
  const detail::FolderLock lock(folder);
  detail::recover_folder(folder);
  const std::set<std::int64_t> steps = detail::scan(folder)[""];
  auto step = steps.begin();
  for (auto left = static_cast<std::int64_t>(steps.size()); left > keep; --left, ++step) {
    detail::remove_step(folder, *step, "");
  }
}

std::string resolve_checkpoint(const std::string& path) {
  const auto inside = [&](std::string_view name) {
    return (std::filesystem::path(path) / name).string();
  };
  if (!detail::path_exists(path)) {
    throw_error<CheckpointError>("there is no checkpoint at '{}': no such file or folder", path);
  }
  if (std::error_code unknown; !std::filesystem::is_directory(path, unknown)) {
    throw_error<CheckpointError>(
        "'{}' is a file; a checkpoint is a folder with {} inside, or name a run's folder", path,
        detail::kManifestName);
  }
  if (detail::path_exists(inside(detail::kManifestName))) {
    return path;
  }
  for (const std::string& folder : {inside("checkpoints"), path}) {
    const std::vector<std::string> found = list_checkpoints(folder);
    if (!found.empty()) {
      return found.back();
    }
  }
  throw_error<CheckpointError>(
      "there is no checkpoint at '{}': neither {} nor step-* folders, in it or in its folder "
      "'checkpoints'",
      path, detail::kManifestName);
}

}  // namespace trireme
