"""The Prometheus client's own parser reads /metrics, and the figures follow what was asked."""

import json
import os
import unittest
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

URL = os.environ["SCONCE_URL"]


def scrape():
    with urllib.request.urlopen(f"{URL}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return families, {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Metrics(unittest.TestCase):
    def test_the_page_is_read(self):
        families, _ = scrape()
        names = {family.name for family in families}
        self.assertTrue({"sconce_requests", "sconce_generated_tokens", "sconce_time_to_first_token_seconds"} <= names, names)
        self.assertTrue(all(family.documentation and family.type != "unknown" for family in families))

    def test_a_request_is_counted(self):
        key = ("sconce_requests_total", (("endpoint", "/v1/completions"), ("status", "200")))
        before = scrape()[1]
        ask = json.dumps({"prompt": "Once", "max_tokens": 5, "ignore_eos": True}).encode()
        with urllib.request.urlopen(f"{URL}/v1/completions", ask) as answer:
            usage = json.load(answer)["usage"]
        after = scrape()[1]
        self.assertEqual(after[key] - before.get(key, 0), 1)
        tokens = ("sconce_generated_tokens_total", ())
        self.assertEqual(after[tokens] - before[tokens], usage["completion_tokens"])


if __name__ == "__main__":
    unittest.main()
