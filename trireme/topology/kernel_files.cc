// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/topology/kernel_files.h"

#include <charconv>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

namespace trireme::detail {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
// Above the largest machine, so that a damaged list cannot fill the memory.
constexpr std::int64_t kMostCpus = 1 << 16;

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();  // unlike iterators, does not throw where the kernel refuses the read
  return std::move(text).str();
}

std::string read_line(const std::filesystem::path& path) {
  return std::string(trimmed(read_file(path)));
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string> split_words(std::string_view text) {
  std::istringstream in{std::string(text)};
  return {std::istream_iterator<std::string>(in), {}};
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

std::map<std::string, std::string> read_fields(const std::filesystem::path& path) {
  std::map<std::string, std::string> fields;
  const std::string text = read_file(path);
  for (const std::string_view line : split_lines(text)) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    fields.emplace(trimmed(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
  }
  return fields;
}

std::optional<std::vector<int>> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    const std::size_t dash = item.find('-');
    const auto low = parse_integer(item.substr(0, dash));
    const auto high = dash == std::string_view::npos ? low : parse_integer(item.substr(dash + 1));
    if (!low || !high || *low < 0 || *high < *low || *high >= kMostCpus) return std::nullopt;
    for (std::int64_t cpu = *low; cpu <= *high; ++cpu) cpus.push_back(static_cast<int>(cpu));
  }
  return cpus;
}

}  // namespace trireme::detail
