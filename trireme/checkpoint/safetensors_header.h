// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The JSON header of a safetensors file, between its text and checked offsets. Shared by the reader
// and the writer of safetensors.h; not for users.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/dtype.h"

namespace trireme::checkpoint_detail {

// A file starts with the header's length as 8 bytes, little endian.
inline constexpr std::uint64_t kLengthBytes = 8;
// Longer headers are refused. The limit of the format's reference implementation.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
// More dims are refused; the number is what a std::vector per tensor may cost, not a need.
inline constexpr std::size_t kMaxDims = 64;
inline constexpr std::string_view kMetadataKey = "__metadata__";

// One tensor: its bytes are [begin, end) of the data that follow the header.
struct HeaderEntry {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct Header {
  std::map<std::string, HeaderEntry> tensors;
  std::map<std::string, std::string> metadata;
};

// The format's name of a dtype ("F32"), and back; nullopt for names that Trireme does not hold.
std::string_view safetensors_dtype(DType dtype);
std::optional<DType> dtype_from_safetensors(std::string_view name);

// Bytes of a tensor; nullopt for a negative dim or a product beyond 63 bits.
std::optional<std::uint64_t> tensor_bytes(DType dtype, std::span<const std::int64_t> shape);

// Parses the header and checks that its tensors fill exactly data_bytes, without hole or overlap,
// each as long as its dtype and shape say. file stands for the file in messages. Throws
// CheckpointError naming the tensor and the numbers that clash.
Header parse_header(std::string_view text, std::uint64_t data_bytes, const std::string& file);

// The header's text for tensors in file order, padded with spaces so that the data start at a
// multiple of 64 bytes. Throws ConfigError when a name or a metadata entry is not UTF-8.
struct NamedEntry {
  std::string name;
  HeaderEntry entry;
};
std::string render_header(std::span<const NamedEntry> tensors,
                          const std::map<std::string, std::string>& metadata);

}  // namespace trireme::checkpoint_detail
