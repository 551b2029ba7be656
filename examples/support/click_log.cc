// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/click_log.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
constexpr std::int64_t kFields = 1 + kClickNumbers + kClickCategories;

// The field as an error shows it: its beginning, on one line.
std::string shown(std::string_view field) {
  constexpr std::size_t kMostLetters = 40;
  std::string text(field.substr(0, kMostLetters));
  for (char& letter : text) {
    if (static_cast<unsigned char>(letter) < ' ' || letter == '\x7f') letter = '?';
  }
  return field.size() > kMostLetters ? text + "..." : text;
}

// The whole field as a number.
template <class Number>
bool parse(std::string_view field, int base, Number& value) {
  const auto [end, error] = std::from_chars(field.begin(), field.end(), value, base);
  return error == std::errc() && end == field.end();
}

float label(std::string_view field, const std::string& where) {
  if (field == "0") return 0;
  if (field == "1") return 1;
  throw_error<DataError>("{}: the label is '{}', and 0 or 1 would be right", where, shown(field));
}

float number(std::string_view field, std::int64_t column, const std::string& where) {
  if (field.empty()) return click_number({});
  std::int64_t count = 0;
  if (!parse(field, 10, count)) {
    throw_error<DataError>("{}: number {} is '{}', and a whole number or nothing would be right",
                           where, column + 1, shown(field));
  }
  return click_number(count);
}

std::int64_t category(std::string_view field, std::int64_t column, const std::string& where) {
  constexpr std::size_t kDigits = 8;
  if (field.empty()) return category_id(column, {});
  std::uint32_t value = 0;
  if (field.size() != kDigits || !parse(field, 16, value)) {
    throw_error<DataError>(
        "{}: category {} is '{}', and eight hexadecimal digits or nothing would be right", where,
        column + 1, shown(field));
  }
  return category_id(column, value);
}

}  // namespace

void detail::parse_click(std::string_view line, const std::string& where, const ClickSample& to) {
  const auto fields = 1 + std::count(line.begin(), line.end(), '\t');
  if (fields != kFields) {
    throw_error<DataError>(
        "{}: {} fields with tabs between, and {} would be right (a label, {} numbers, {} "
        "categories): '{}'",
        where, fields, kFields, kClickNumbers, kClickCategories, shown(line));
  }
  const auto next = [&line] {
    const std::size_t end = std::min(line.find('\t'), line.size());
    const std::string_view field = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return field;
  };
  *to.label = label(next(), where);
  for (std::int64_t i = 0; i < kClickNumbers; ++i) to.numbers[i] = number(next(), i, where);
  for (std::int64_t i = 0; i < kClickCategories; ++i) {
    to.categories[i] = category(next(), i, where);
  }
}

ClickLog::ClickLog(std::string path, const ClickLogOptions& options)
    : path_(std::move(path)), options_(options), buffer_(kBufferBytes) {
  if (options.batch < 1) {
    throw_error<ConfigError>("{}: batches of {} samples; 1 is the least", path_, options.batch);
  }
  if (options.worker < 0 || options.worker >= options.num_workers) {
    throw_error<ConfigError>("{}: worker {} of {}; the first is 0", path_, options.worker,
                             options.num_workers);
  }
  file_.rdbuf()->pubsetbuf(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  file_.open(path_, std::ios::binary);
  if (!file_) {
    throw_error<DataError>("{}: {}; click logs are read unpacked, as gunzip leaves them", path_,
                           std::strerror(errno));
  }
}

std::optional<ClickBatch> ClickLog::next() {
  const std::int64_t begin = num_read_, end = begin + options_.batch;
  const std::int64_t most = (options_.batch - 1) / options_.num_workers + 1;
  const ClickBatch batch{at::empty({most}, at::kFloat),
                         at::empty({most, kClickNumbers}, at::kFloat),
                         at::empty({most, kClickCategories}, at::kLong)};
  detail::ClickSample to{batch.labels.data_ptr<float>(), batch.numbers.data_ptr<float>(),
                         batch.categories.data_ptr<std::int64_t>()};
  std::int64_t count = 0;
  for (std::string line; num_read_ < end && std::getline(file_, line); ++num_read_) {
    if (num_read_ % options_.num_workers != options_.worker) continue;
    detail::parse_click(line, fmt::format("{}:{}", path_, num_read_ + 1), to);
    ++count;
    ++to.label;
    to.numbers += kClickNumbers;
    to.categories += kClickCategories;
  }
  if (file_.bad()) throw_error<DataError>("{}:{}: cannot be read further", path_, num_read_ + 1);
  if (num_read_ == begin) return {};
  return ClickBatch{batch.labels.narrow(0, 0, count), batch.numbers.narrow(0, 0, count),
                    batch.categories.narrow(0, 0, count)};
}

void ClickLog::rewind() {
  file_.clear();
  file_.seekg(0);
  num_read_ = 0;
}

}  // namespace trireme::examples
