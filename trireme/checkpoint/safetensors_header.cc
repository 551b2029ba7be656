// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme::checkpoint_detail {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<DType, std::string_view>, 8> kDTypeNames = {{
    {DType::kF64, "F64"},
    {DType::kF32, "F32"},
    {DType::kBF16, "BF16"},
    {DType::kF16, "F16"},
    {DType::kI64, "I64"},
    {DType::kI32, "I32"},
    {DType::kI8, "I8"},
    {DType::kU8, "U8"},
}};

// Data start at a multiple of this, a cache line and the widest vector register. The format asks
// for none, its reference writer gives 8.
constexpr std::size_t kDataAlignment = 64;

// Reads the header's grammar from the events of the JSON parser, so that no document is ever built:
// what is kept is what the format knows, nesting ends at depth 3, and a key that comes twice is
// seen (a document would silently keep one of them).
//
//   {"__metadata__": {string: string, ...},
//    name: {"dtype": string, "shape": [unsigned, ...], "data_offsets": [unsigned, unsigned]}, ...}
class HeaderReader final : public nlohmann::json_sax<json> {
 public:
  HeaderReader(Header& header, const std::string& file) : header_(header), file_(file) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return unexpected("a number that is no integer of 64 bits");
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        fail("tensor '{}' has a dim of {}", printable(name_), value);
      }
      if (entry_.shape.size() == kMaxDims) {
        fail("tensor '{}' has more than {} dims", printable(name_), kMaxDims);
      }
      entry_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (num_offsets_ == 2) {
        fail("tensor '{}' has more than two data_offsets", printable(name_));
      }
      (num_offsets_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return unexpected("a number");
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata.at(key_) = std::move(value);
      return true;
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      const std::optional<DType> dtype = dtype_from_safetensors(value);
      if (!dtype) {
        fail(
            "tensor '{}' has dtype '{}', which Trireme does not read (it reads F64, F32, BF16, "
            "F16, I64, I32, I8, U8)",
            printable(name_), printable(value));
      }
      entry_.dtype = *dtype;
      return true;
    }
    return unexpected("a string");
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      name_ = key_;
      if (name_ == kMetadataKey) {
        place_ = Place::kMetadata;
      } else {
        place_ = Place::kTensor;
        entry_ = HeaderEntry{};
        num_offsets_ = 0;
        seen_ = {};
      }
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (place_ == Place::kTop) {
      const bool is_metadata = value == kMetadataKey;
      if (is_metadata ? std::exchange(has_metadata_, true) : header_.tensors.contains(value)) {
        fail("'{}' is in the header twice", printable(value));
      }
    } else if (place_ == Place::kMetadata) {
      if (!header_.metadata.try_emplace(value).second) {
        fail("'{}' is in the metadata twice", printable(value));
      }
    } else {
      const auto field = std::find(kFields.begin(), kFields.end(), value);
      if (field == kFields.end()) {
        fail("tensor '{}' has the unknown field '{}'", printable(name_), printable(value));
      }
      if (std::exchange(seen_[static_cast<std::size_t>(field - kFields.begin())], true)) {
        fail("tensor '{}' has the field '{}' twice", printable(name_), value);
      }
    }
    key_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (!std::all_of(seen_.begin(), seen_.end(), [](bool seen) { return seen; })) {
        fail("tensor '{}' lacks dtype, shape or data_offsets", printable(name_));
      }
      header_.tensors.emplace(std::move(name_), std::move(entry_));
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && key_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && num_offsets_ != 2) {
      fail("tensor '{}' has {} data_offsets instead of two", printable(name_), num_offsets_);
    }
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail("its header is not valid JSON at byte {}", position);
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error<CheckpointError>("'{}' is not a valid safetensors file: {}", file_,
                                 fmt::format(format, std::forward<Args>(args)...));
  }

  [[noreturn]] bool unexpected(std::string_view what) const {
    fail("its header has {} where none may be, at '{}'", what,
         printable(place_ == Place::kTop || place_ == Place::kStart ? key_ : name_ + "." + key_));
  }

  Header& header_;
  const std::string& file_;
  Place place_ = Place::kStart;
  bool has_metadata_ = false;
  std::string key_;
  // The tensor being read.
  std::string name_;
  HeaderEntry entry_;
  int num_offsets_ = 0;
  std::array<bool, kFields.size()> seen_ = {};
};

// Tensors, ordered by their offsets, must follow one another from 0 to data_bytes.
void check_offsets(const Header& header, std::uint64_t data_bytes, const std::string& file) {
  using Named = std::pair<const std::string, HeaderEntry>;
  std::vector<const Named*> order;
  order.reserve(header.tensors.size());
  for (const Named& tensor : header.tensors) {
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const Named* left, const Named* right) {
    return std::pair(left->second.begin, left->second.end) <
           std::pair(right->second.begin, right->second.end);
  });

  std::uint64_t position = 0;
  for (const Named* tensor : order) {
    const HeaderEntry& entry = tensor->second;
    if (entry.begin != position || entry.end < entry.begin || entry.end > data_bytes) {
      throw_error<CheckpointError>(
          "'{}' is not a valid safetensors file: tensor '{}' has bytes {} to {}, but byte {} of {} "
          "is the next one; the file is truncated or damaged",
          file, printable(tensor->first), entry.begin, entry.end, position, data_bytes);
    }
    const std::optional<std::uint64_t> expected = tensor_bytes(entry.dtype, entry.shape);
    if (!expected || *expected != entry.end - entry.begin) {
      throw_error<CheckpointError>(
          "'{}' is not a valid safetensors file: tensor '{}' has {} bytes, but {} [{}] takes {}",
          file, printable(tensor->first), entry.end - entry.begin, safetensors_dtype(entry.dtype),
          fmt::join(entry.shape, ", "), expected ? std::to_string(*expected) : "more than 2^63");
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    throw_error<CheckpointError>(
        "'{}' is not a valid safetensors file: its tensors end at byte {} of {}", file, position,
        data_bytes);
  }
}

}  // namespace

std::string_view safetensors_dtype(DType dtype) {
  const auto* found = std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                                   [&](const auto& known) { return known.first == dtype; });
  return found->second;
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  const auto* found = std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                                   [&](const auto& known) { return known.second == name; });
  if (found == kDTypeNames.end()) {
    return std::nullopt;
  }
  return found->first;
}

std::optional<std::uint64_t> tensor_bytes(DType dtype, std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count)) {
      return std::nullopt;
    }
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(count, static_cast<std::int64_t>(dtype_bytes(dtype)), &bytes)) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

Header parse_header(std::string_view text, std::uint64_t data_bytes, const std::string& file) {
  // The parser below would skip a byte order mark and take a NUL for the end of the text.
  if (!text.starts_with('{') || text.find('\0') != std::string_view::npos) {
    throw_error<CheckpointError>("'{}' is not a valid safetensors file: its header is no JSON text",
                                 file);
  }
  Header header;
  HeaderReader reader(header, file);
  json::sax_parse(text.begin(), text.end(), &reader);
  check_offsets(header, data_bytes, file);
  return header;
}

std::string render_header(std::span<const NamedEntry> tensors,
                          const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json document = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    document[std::string(kMetadataKey)] = metadata;
  }
  std::string text;
  try {
    text = document.dump();
    text.pop_back();
    // Appended one by one: an ordered_json object of n keys costs n^2 comparisons.
    for (const NamedEntry& tensor : tensors) {
      const HeaderEntry& entry = tensor.entry;
      text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          text.size() > 1 ? "," : "", json(tensor.name).dump(),
                          safetensors_dtype(entry.dtype), fmt::join(entry.shape, ","), entry.begin,
                          entry.end);
    }
  } catch (const json::exception&) {
    throw_error<ConfigError>("a tensor's name or the metadata is not UTF-8 text");
  }
  text += '}';
  const std::size_t unaligned = (kLengthBytes + text.size()) % kDataAlignment;
  text.append((kDataAlignment - unaligned) % kDataAlignment, ' ');
  return text;
}

}  // namespace trireme::checkpoint_detail
