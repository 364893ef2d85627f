from support.documentation import generator

performance = generator("generate_performance")


def test_the_tables_are_those_of_the_records():
    text = performance.PAGE.read_text(encoding="utf-8")
    _, begin, rest = text.partition(performance.BEGIN)
    made, end, _ = rest.partition(performance.END)
    assert begin
    assert end
    assert made == performance.page(), "the records have changed: python docs/generate_performance.py"


def test_without_records_there_is_no_table(tmp_path):
    assert performance.page(tmp_path) == ""
