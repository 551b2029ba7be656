// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/safetensors.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/checkpoint/file_io.h"
#include "trireme/checkpoint/safetensors_header.h"

namespace trireme {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors holds little-endian numbers, and tensors are used where they lie");

// A whole file in memory, read only. The pages come from the file when they are first touched.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const checkpoint_detail::InputFile input = checkpoint_detail::open_input(path);
    if (input.size == 0) {
      return;  // mmap refuses a length of zero
    }
    void* address = ::mmap(nullptr, input.size, PROT_READ, MAP_PRIVATE, input.file.get(), 0);
    if (address == MAP_FAILED) {
      checkpoint_detail::throw_system_error("map", path, errno);
    }
    bytes_ = {static_cast<const std::byte*>(address), input.size};
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (!bytes_.empty()) {
      ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

// What a file that is no safetensors file seems to be, for the message.
std::string_view guess_kind(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("PK\x03\x04") || text.starts_with("\x80\x02")) {
    return " (it looks like PyTorch's pickle format; convert it to safetensors in Python first)";
  }
  if (text.starts_with("GGUF")) {
    return " (it looks like GGUF)";
  }
  if (text.starts_with("version https://git-lfs")) {
    return " (it is a Git LFS pointer; fetch the file itself with git lfs pull)";
  }
  return "";
}

// The header's text; the data follow it.
std::string_view find_header(std::span<const std::byte> bytes, const std::string& path) {
  if (bytes.size() < checkpoint_detail::kLengthBytes) {
    throw_error<CheckpointError>(
        "'{}' is not a safetensors file: it has {} bytes, the length of the header alone takes {}",
        path, bytes.size(), checkpoint_detail::kLengthBytes);
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > checkpoint_detail::kMaxHeaderBytes) {
    throw_error<CheckpointError>(
        "'{}' is not a safetensors file: its header would have {} bytes, more than {}{}", path,
        length, checkpoint_detail::kMaxHeaderBytes, guess_kind(bytes));
  }
  if (length > bytes.size() - checkpoint_detail::kLengthBytes) {
    throw_error<CheckpointError>(
        "'{}' is truncated or not a safetensors file: its header should have {} bytes, {} are "
        "there{}",
        path, length, bytes.size() - checkpoint_detail::kLengthBytes, guess_kind(bytes));
  }
  return {reinterpret_cast<const char*>(bytes.data()) + checkpoint_detail::kLengthBytes, length};
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path) : path_(std::move(path)) {}

void SafetensorsWriter::add(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
                            std::span<const std::byte> data) {
  const std::optional<std::uint64_t> expected = checkpoint_detail::tensor_bytes(dtype, shape);
  if (!expected || *expected != data.size()) {
    throw_error<ShapeError>("tensor '{}' for '{}' has {} bytes, but {} [{}] takes {}", name, path_,
                            data.size(), dtype_name(dtype), fmt::join(shape, ", "),
                            expected ? std::to_string(*expected) : "no possible number");
  }
  if (shape.size() > checkpoint_detail::kMaxDims) {
    throw_error<ShapeError>("tensor '{}' for '{}' has {} dims, more than {}", name, path_,
                            shape.size(), checkpoint_detail::kMaxDims);
  }
  if (name == checkpoint_detail::kMetadataKey) {
    throw_error<ConfigError>("a tensor for '{}' cannot be called '{}'", path_, name);
  }
  if (!names_.insert(name).second) {
    throw_error<ConfigError>("tensor '{}' is added to '{}' twice", name, path_);
  }
  entries_.push_back({name, {dtype, std::move(shape), data}});
}

std::string SafetensorsWriter::write(const std::map<std::string, std::string>& metadata) {
  // Wide elements first: as the data may have no holes, this is what aligns every tensor to its
  // element size. Among equals the order of add() stays.
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& left, const Entry& right) {
    return dtype_bytes(left.view.dtype) > dtype_bytes(right.view.dtype);
  });
  std::vector<checkpoint_detail::NamedEntry> layout;
  layout.reserve(entries_.size());
  std::uint64_t position = 0;
  for (const Entry& entry : entries_) {
    const std::uint64_t end = position + entry.view.bytes.size();
    layout.push_back({entry.name, {entry.view.dtype, entry.view.shape, position, end}});
    position = end;
  }
  const std::string header = checkpoint_detail::render_header(layout, metadata);
  const std::uint64_t length = header.size();
  if (length > checkpoint_detail::kMaxHeaderBytes) {
    throw_error<ConfigError>("the header of '{}' would have {} bytes, the format ends at {}", path_,
                             length, checkpoint_detail::kMaxHeaderBytes);
  }

  checkpoint_detail::OutputFile output(path_, checkpoint_detail::OutputFile::Existing::kRefuse);
  output.write(std::as_bytes(std::span(&length, 1)));
  output.write(checkpoint_detail::as_bytes(header));
  for (const Entry& entry : entries_) {
    output.write(entry.view.bytes);
  }
  return output.finish();
}

struct SafetensorsFile::Impl {
  explicit Impl(const std::string& file) : path(file), mapping(file) {}

  std::string path;
  Mapping mapping;
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

SafetensorsFile::SafetensorsFile(const std::string& path) : impl_(std::make_unique<Impl>(path)) {
  const std::span<const std::byte> bytes = impl_->mapping.bytes();
  const std::string_view text = find_header(bytes, path);
  const std::span<const std::byte> data =
      bytes.subspan(checkpoint_detail::kLengthBytes + text.size());
  checkpoint_detail::Header header = checkpoint_detail::parse_header(text, data.size(), path);
  impl_->metadata = std::move(header.metadata);
  for (auto& [name, entry] : header.tensors) {
    impl_->tensors.emplace_hint(impl_->tensors.end(), name,
                                TensorView{entry.dtype, std::move(entry.shape),
                                           data.subspan(entry.begin, entry.end - entry.begin)});
  }
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::map<std::string, TensorView>& SafetensorsFile::tensors() const { return impl_->tensors; }

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->metadata;
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto found = impl_->tensors.find(name);
  if (found == impl_->tensors.end()) {
    throw_error<CheckpointError>("'{}' holds no tensor '{}' (it holds {} others)", impl_->path,
                                 name, impl_->tensors.size());
  }
  return found->second;
}

std::string SafetensorsFile::digest() const {
  return checkpoint_detail::digest_of(impl_->mapping.bytes());
}

}  // namespace trireme
