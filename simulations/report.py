def write_report(study, folder, verdict):
    (folder.path / "report.html").write_text("")
