// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <concepts>
#include <cstring>
#include <filesystem>
#include <optional>

#include "trireme/train/crc32c.h"

namespace trireme {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

template <class Number>
std::string bytes_of(Number number) {
  std::string bytes(sizeof(number), '\0');
  std::memcpy(bytes.data(), &number, sizeof(number));
  return bytes;
}

// TFRecord does not store CRCs bare, so that a CRC over data that hold CRCs stays meaningful.
std::uint32_t masked_crc(std::string_view bytes) {
  constexpr std::uint32_t kMaskDelta = 0xA282EAD8;
  return std::rotr(crc32c(bytes), 15) + kMaskDelta;
}

std::string record(std::string_view data) {
  const std::string length = bytes_of(std::uint64_t{data.size()});
  return fmt::format("{}{}{}{}", length, bytes_of(masked_crc(length)), data,
                     bytes_of(masked_crc(data)));
}

// A field of a protocol buffer starts with its number and the kind of its bytes.
enum class Wire : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes += static_cast<char>((value & 0x7F) | 0x80);
  }
  return bytes + static_cast<char>(value);
}

std::string key(std::uint64_t number, Wire wire) {
  return varint(number << 3 | static_cast<std::uint64_t>(wire));
}

std::string bytes_field(std::uint64_t number, std::string_view bytes) {
  return fmt::format("{}{}{}", key(number, Wire::kBytes), varint(bytes.size()), bytes);
}

// Event { double wall_time = 1; int64 step = 2; oneof { string file_version = 3; Summary summary =
// 5; SessionLog session_log = 7; } } with what as the last field.
std::string event(std::int64_t step, const std::string& what) {
  const std::chrono::duration<double> since_epoch =
      std::chrono::system_clock::now().time_since_epoch();
  return key(1, Wire::kFixed64) + bytes_of(since_epoch.count()) + key(2, Wire::kVarint) +
         varint(static_cast<std::uint64_t>(step)) + what;
}

// Summary { repeated Value value = 1; }, Value { string tag = 1; float simple_value = 2; }
std::string scalar(const std::string& tag, double value) {
  return bytes_field(
      1, bytes_field(1, tag) + key(2, Wire::kFixed32) + bytes_of(static_cast<float>(value)));
}

std::optional<double> number_in(const FieldValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    return static_cast<double>(*integer);
  }
  if (const auto* real = std::get_if<double>(&value)) {
    return *real;
  }
  return std::nullopt;
}

// A name that no file in folder has: of two runs that start in the same second, the later gets a
// number.
std::string free_path(const std::string& folder) {
  std::array<char, 256> host = {};
  if (::gethostname(host.data(), host.size() - 1) != 0) {
    host = {'h', 'o', 's', 't'};
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const std::string name =
      fmt::format("{}/events.out.tfevents.{:010d}.{}", folder, seconds.count(), host.data());
  std::string path = name;
  std::error_code unknown;
  for (int number = 1; std::filesystem::exists(path, unknown); ++number) {
    path = fmt::format("{}.{}", name, number);
  }
  return path;
}

}  // namespace

EventFile::EventFile(const std::string& folder, std::int64_t last_step)
    : file_(free_path(folder), AppendFile::Existing::kRefuse) {
  file_.append(record(event(0, bytes_field(3, "brain.Event:2"))));
  // SessionLog { SessionStatus status = 1; }, START = 1: readers drop this step and later ones.
  const std::string start = key(1, Wire::kVarint) + varint(1);
  file_.append(record(event(last_step + 1, bytes_field(7, start))));
}

void EventFile::append(std::int64_t step, const Fields& fields) {
  std::string summary;
  for (const auto& [name, value] : fields) {
    const std::optional<double> number = number_in(value);
    if (number && name != "step") {
      summary += scalar(name, *number);
    }
  }
  if (!summary.empty()) {
    file_.append(record(event(step, bytes_field(5, summary))));
  }
}

}  // namespace trireme
