"""Two connections to mariadb: one whose transaction is open all the time, and one that commits
every row. What the first has written, the second sees in the end and not before."""

import pymysql

import load


def client(address):
    def connect():
        return pymysql.connect(host=address, user="root", read_timeout=load.PATIENCE_S, autocommit=True)

    def ask(connection, statement):
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    quick = load.until_it_listens(connect)
    ask(quick, "CREATE DATABASE load_test")
    for table in ("held", "quick"):
        ask(quick, f"CREATE TABLE load_test.{table} (n BIGINT PRIMARY KEY) ENGINE InnoDB")
    holder = connect()
    ask(holder, "BEGIN")
    n = 0
    while not (yield):
        n += 1
        ask(holder, f"INSERT INTO load_test.held VALUES ({n})")
        ask(quick, f"INSERT INTO load_test.quick VALUES ({n})")
        load.expect(((n, n * (n + 1) // 2),), ask(holder, "SELECT COUNT(*), SUM(n) FROM load_test.held"))
        load.expect(((0,),), ask(quick, "SELECT COUNT(*) FROM load_test.held"))
    ask(holder, "COMMIT")
    for table in ("held", "quick"):
        load.expect(((n, n * (n + 1) // 2),), ask(quick, f"SELECT COUNT(*), SUM(n) FROM load_test.{table}"))


load.run(client)
