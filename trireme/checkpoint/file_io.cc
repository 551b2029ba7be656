// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/checkpoint/atomic_file.h"

namespace trireme::detail {
namespace {

// Bytes hashed and then written in one go: small enough to stay in the cache in between, large
// enough that the system call costs nothing beside it.
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

}  // namespace

void throw_system_error(std::string_view action, const std::string& path, int error) {
  std::string_view advice;
  if (error == ENOSPC || error == EDQUOT) {
    advice = "; free some space or choose another folder";
  } else if (error == EACCES || error == EPERM || error == EROFS) {
    advice = "; choose a folder that this user may write";
  } else if (error == EFBIG) {
    advice = "; raise the file size limit (ulimit -f)";
  }
  throw_error<CheckpointError>("cannot {} '{}': {}{}", action, path,
                               std::generic_category().message(error), advice);
}

struct Digest::Impl {
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state{XXH3_createState()};
};

Digest::Digest() : impl_(std::make_unique<Impl>()) {
  if (impl_->state == nullptr) {
    throw std::bad_alloc();
  }
  XXH3_64bits_reset(impl_->state.get());
}
Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;

void Digest::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) {
    XXH3_64bits_update(impl_->state.get(), bytes.data(), bytes.size());
  }
}

std::string Digest::hex() const {
  return fmt::format("{:016x}", XXH3_64bits_digest(impl_->state.get()));
}

std::string digest_of(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

OutputFile::OutputFile(std::string path, Existing existing) : path_(std::move(path)) {
  const int flags = existing == Existing::kRefuse ? O_EXCL : O_TRUNC;
  file_ = FileDescriptor(retry([&] {
    return ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0666);
  }));
  if (!file_) {
    throw_system_error("create", path_, errno);
  }
}

OutputFile::~OutputFile() {
  if (!finished_) {
    ::unlink(path_.c_str());
  }
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    std::span<const std::byte> piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    bytes = bytes.subspan(piece.size());
    digest_.update(piece);
    while (!piece.empty()) {
      const ssize_t written =
          retry([&] { return ::write(file_.get(), piece.data(), piece.size()); });
      if (written < 0) {
        throw_system_error("write", path_, errno);
      }
      piece = piece.subspan(static_cast<std::size_t>(written));
      size_ += static_cast<std::uint64_t>(written);
    }
  }
}

std::string OutputFile::finish() {
  if (retry([&] { return ::fsync(file_.get()); }) != 0) {
    throw_system_error("flush to disk", path_, errno);
  }
  // Not retried: after EINTR Linux has closed the descriptor.
  if (::close(file_.release()) != 0 && errno != EINTR) {
    throw_system_error("close", path_, errno);
  }
  finished_ = true;
  return digest_.hex();
}

void OutputFile::finish_as(const std::string& path) {
  finish();
  finished_ = false;  // until it carries its final name
  rename_path(path_, path);
  finished_ = true;
  sync_folder(parent_folder(path));
}

InputFile open_input(const std::string& path) {
  // O_NONBLOCK: opening a pipe without a writer must not wait. It means nothing to a regular file.
  InputFile input{FileDescriptor(retry([&] {
                    return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
                  })),
                  0};
  if (!input.file) {
    throw_system_error("open", path, errno);
  }
  struct stat status = {};
  if (::fstat(input.file.get(), &status) != 0) {
    throw_system_error("examine", path, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    throw_error<CheckpointError>("'{}' is a {}, not a regular file", path,
                                 S_ISDIR(status.st_mode) ? "folder" : "pipe or device");
  }
  input.size = static_cast<std::uint64_t>(status.st_size);
  return input;
}

namespace {

// Reads at least one byte at offset; returns how many.
std::size_t read_some(const InputFile& input, const std::string& path, std::uint64_t offset,
                      std::span<std::byte> out) {
  const ssize_t got = retry([&] {
    return ::pread(input.file.get(), out.data(), out.size(), static_cast<off_t>(offset));
  });
  if (got < 0) {
    throw_system_error("read", path, errno);
  }
  if (got == 0) {
    throw_error<CheckpointError>("'{}' ended at byte {} of {} while it was read", path, offset,
                                 input.size);
  }
  return static_cast<std::size_t>(got);
}

}  // namespace

void read_file(const InputFile& input, const std::string& path, std::span<std::byte> out) {
  for (std::size_t filled = 0; filled < out.size();) {
    filled += read_some(input, path, filled, out.subspan(filled));
  }
}

std::string read_file(const std::string& path, std::uint64_t limit_bytes) {
  const InputFile input = open_input(path);
  if (input.size > limit_bytes) {
    throw_error<CheckpointError>("'{}' has {} bytes; at most {} are expected here", path,
                                 input.size, limit_bytes);
  }
  std::string content(input.size, '\0');
  read_file(input, path, std::as_writable_bytes(std::span(content.data(), content.size())));
  return content;
}

std::string digest_of_file(const InputFile& input, const std::string& path) {
  std::vector<std::byte> buffer(std::min<std::uint64_t>(input.size, kPieceBytes));
  Digest digest;
  for (std::uint64_t offset = 0; offset < input.size;) {
    const std::size_t wanted = std::min<std::uint64_t>(buffer.size(), input.size - offset);
    const std::size_t got = read_some(input, path, offset, std::span(buffer).first(wanted));
    digest.update(std::span(buffer).first(got));
    offset += got;
  }
  return digest.hex();
}

void rename_path(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    throw_system_error(fmt::format("rename '{}' to", from), to, errno);
  }
}

void remove_path(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) {
    throw_system_error("remove", path, error.value());
  }
}

void make_folders(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) == 0) {
    sync_folder(parent_folder(path));
    return;
  }
  const int error = errno;
  const std::filesystem::path name(path);
  if (error == ENOENT && name.has_parent_path() && name.parent_path() != name) {
    make_folders(name.parent_path().string());
    if (name.has_filename()) {  // "a/b/" is done with "a/b"
      make_folders(path);
    }
    return;
  }
  std::error_code ignored;
  if (error != EEXIST || !std::filesystem::is_directory(path, ignored)) {
    throw_system_error("create folder", path, error == EEXIST ? ENOTDIR : error);
  }
}

std::string parent_folder(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

bool path_exists(const std::string& path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) == 0) {
    return true;
  }
  if (errno != ENOENT && errno != ENOTDIR) {
    throw_system_error("examine", path, errno);
  }
  return false;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kShownBytes = 80;
  std::string shown;
  for (const char c : text.substr(0, kShownBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      shown += fmt::format("\\x{:02x}", byte);
    } else {
      shown += c;
    }
  }
  return text.size() > kShownBytes ? shown + "..." : shown;
}

}  // namespace trireme::detail
