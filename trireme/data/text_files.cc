// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/text_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "trireme/base/error.h"
#include "trireme/data/file_io.h"

namespace trireme::detail {
namespace {

namespace fs = std::filesystem;

// One thing below the root: what lstat says, or that it cannot.
struct Seen {
  std::string path;
  const char* skip = nullptr;
  std::int64_t size = 0;
  std::int64_t changed_ns = 0;
};

const char* skip_reason(const struct stat& status, std::int64_t max_file_bytes) {
  if (S_ISLNK(status.st_mode)) {
    return kSymbolicLink;
  }
  if (!S_ISREG(status.st_mode)) {
    return kNotRegular;
  }
  if (status.st_size == 0) {
    return kEmpty;
  }
  return status.st_size > max_file_bytes ? kTooLarge : nullptr;
}

class Walk {
 public:
  Walk(std::string root, std::int64_t max_file_bytes, const std::vector<std::string>& excluded)
      : root_(std::move(root)), max_file_bytes_(max_file_bytes), excluded_(excluded) {}

  void file(const std::string& path, const struct stat& status) {
    seen_.push_back({path, skip_reason(status, max_file_bytes_),
                     static_cast<std::int64_t>(status.st_size),
                     status.st_mtim.tv_sec * std::int64_t{1000000000} + status.st_mtim.tv_nsec});
  }

  // prefix is empty for the root, else ends with '/'. Depth is bounded by the system's path length.
  void folder(const std::string& prefix) {
    const std::string full = root_ + "/" + prefix;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(full.c_str()), &::closedir);
    if (entries == nullptr) {
      if (prefix.empty()) {
        throw_error<DataError>("cannot read folder {}: {}", root_, system_reason(errno));
      }
      seen_.push_back({prefix, kUnreadable});
      return;
    }
    while (const dirent* const entry = ::readdir(entries.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") {
        continue;
      }
      struct stat status {};
      if (::fstatat(::dirfd(entries.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        seen_.push_back({prefix + name, kUnreadable});
      } else if (!S_ISDIR(status.st_mode)) {
        file(prefix + name, status);
      } else if (std::find(excluded_.begin(), excluded_.end(), full + name) == excluded_.end()) {
        folder(prefix + name + "/");
      }
    }
  }

  TextListing listing() && {
    std::sort(seen_.begin(), seen_.end(),
              [](const Seen& a, const Seen& b) { return a.path < b.path; });
    TextListing listing;
    std::string identity;
    for (const Seen& one : seen_) {
      identity += fmt::format("{}\n{} {} {}\n", one.path, one.skip == nullptr ? "" : one.skip,
                              one.size, one.changed_ns);
      if (one.skip != nullptr) {
        ++listing.skipped[one.skip];
      } else {
        listing.files.push_back({one.path, one.size});
      }
    }
    listing.root = std::move(root_);
    listing.hash = content_hash(identity);
    return listing;
  }

 private:
  std::string root_;
  const std::int64_t max_file_bytes_;
  const std::vector<std::string>& excluded_;
  std::vector<Seen> seen_;
};

}  // namespace

std::int64_t TextListing::bytes() const {
  std::int64_t sum = 0;
  for (const TextFile& file : files) {
    sum += file.size;
  }
  return sum;
}

TextListing list_text_files(const std::string& text, std::int64_t max_file_bytes,
                            const std::vector<std::string>& excluded) {
  struct stat status {};
  if (::stat(text.c_str(), &status) != 0) {
    throw_error<DataError>("cannot read text {}: {}; give a folder of text files, or one file",
                           text, system_reason(errno));
  }
  const fs::path path = fs::canonical(text);
  const bool is_folder = S_ISDIR(status.st_mode);
  Walk walk((is_folder ? path : path.parent_path()).string(), max_file_bytes, excluded);
  if (is_folder) {
    walk.folder("");
  } else {
    walk.file(path.filename().string(), status);
  }
  return std::move(walk).listing();
}

std::optional<std::string> read_text_file(const std::string& root, const TextFile& file,
                                          std::int64_t limit) {
  // Not blocking: what was a file when it was listed may be a pipe now.
  const FileDescriptor opened(
      ::open((root + "/" + file.path).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (!opened || ::fstat(opened.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return std::nullopt;
  }
  std::string content(static_cast<std::size_t>(std::min<std::int64_t>(status.st_size, limit)),
                      '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t got = ::read(opened.get(), content.data() + done, content.size() - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return std::nullopt;
    }
    if (got == 0) {
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  content.resize(done);
  return content;
}

std::string content_hash(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string describe_skipped(const std::map<std::string, std::int64_t>& skipped) {
  std::string text;
  for (const auto& [reason, count] : skipped) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, reason);
  }
  return text.empty() ? "none" : text;
}

}  // namespace trireme::detail
